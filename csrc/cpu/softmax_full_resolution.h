// Logits already at label size: no enlargement, a tile of pixels is read once and its gradient written once.
#pragma once

#include "conversion.h"
#include "softmax_band.h"

namespace ciss {
namespace CISS_ISA {

template <class Real>
struct FullResolutionState {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  static constexpr int L = Simd<Real>::lanes;
  static constexpr int TILE_VECTORS = 4;  // neighbouring pixels read together: a few cache lines of every class

  const SoftmaxTask& task;
  const Constants<Real> constants;
  LaneSums<Real> lane_sums;
  int64_t classes, all_classes;
  V* logits;    // [TILE_VECTORS][all_classes]
  V* gradient;  // [TILE_VECTORS][classes]
  Real* row;    // [TILE_VECTORS * L]
  int32_t* labels;

  FullResolutionState(const SoftmaxTask& t, char* memory, size_t* bytes = nullptr)
      : task(t), constants(t), classes(t.classes), all_classes(t.classes + t.teacher_classes()) {
    Scratch scratch{memory};
    logits = scratch.take<V>(TILE_VECTORS * all_classes);
    gradient = scratch.take<V>(TILE_VECTORS * classes);
    row = scratch.take<Real>(TILE_VECTORS * L);
    labels = scratch.take<int32_t>(TILE_VECTORS * L);
    if (bytes) *bytes = scratch.used;
  }

  void run(const PixelRange& range, double sums[SUM_COUNT]) {
    for (int64_t pixel = range.first, end = range.first + range.count; pixel < end;) {
      // A tile stays within a row, whatever the strides.
      const int64_t y = pixel / task.width, x = pixel % task.width;
      int64_t count = TILE_VECTORS * L;
      if (count > task.width - x) count = task.width - x;
      if (count > end - pixel) count = end - pixel;
      tile(range.image, y, x, int(count));
      lane_sums.move_to(sums);
      pixel += count;
    }
  }

  void tile(int64_t image, int64_t y, int64_t x, int count) {
    const double log2e = 1.44269504088896340736;
    read(task.student, image, y, x, count, Real(log2e), 0, classes);
    if (task.teacher.data)
      read(task.teacher, image, y, x, count, Real(log2e * task.settings.alpha), classes, all_classes - classes);
    read_labels(labels, task.label,
                image * task.label.batch_stride + y * task.label.row_stride + x * task.label.column_stride, count);
    for (int i = 0; i * L < count; i++) {
      V *z = logits + i * all_classes, *g = gradient + i * classes;
      RegionMasks<Real> region;
      const M label = read_regions(i * L, count, region);
      exact_pixels<Real>(task, constants, region, label, z, g, lane_sums);
      add_labels(region, label, z, g);
    }
    if (task.gradient.data) write(image, y, x, count);
  }

  void read(const LogitsView& view, int64_t image, int64_t y, int64_t x, int count, Real scale, int64_t first,
            int64_t channels) {
    const int64_t start = image * view.batch_stride + y * view.row_stride + x * view.column_stride;
    V poison = splat(Real(0));
    for (int j = count; j < TILE_VECTORS * L; j++) row[j] = 0;
    for (int64_t c = 0; c < channels; c++) {
      read_logits(row, view, start + c * view.class_stride, view.column_stride, count, scale);
      for (int i = 0; i * L < count; i++) {
        const V z = load(row + i * L);
        poison += z * Real(0);
        logits[i * all_classes + first + c] = z;
      }
    }
    lane_sums.add(SUM_POISON, poison);
  }

  M read_regions(int first, int count, RegionMasks<Real>& region) const {
    typedef typename Simd<Real>::Integer Integer;
    const int32_t ignore = int32_t(task.settings.ignore_index);
    M label{}, inside{};
    for (int i = 0; i < L && first + i < count; i++) {
      label[i] = labels[first + i];
      inside[i] = -1;
    }
    const M ignored = (label == Integer(ignore)) | (label < 0) | (label >= Integer(classes));
    const M unlabelled = label < Integer(task.old_classes > 0 ? 1 : 0);
    region.ignored = inside & ignored;
    region.unlabelled = inside & ~ignored & unlabelled;
    region.old = inside & ~ignored & ~unlabelled & (label < Integer(task.old_classes));
    region.fresh = inside & ~ignored & ~unlabelled & (label >= Integer(task.old_classes));
    return label;
  }

  // The labels' own part, -z_y.
  void add_labels(const RegionMasks<Real>& region, M label, const V* z, V* g) {
    const Real old = Real(task.coefficients.label_old), fresh = Real(task.coefficients.label_new);
    V z_old = splat(Real(0)), z_new = z_old;
    for (int i = 0; i < L; i++) {
      if (region.fresh[i]) {
        z_new[i] = z[label[i]][i];
        g[label[i]][i] -= fresh;
      } else if (region.old[i]) {
        z_old[i] = z[label[i]][i];
        g[label[i]][i] -= old;
      }
    }
    lane_sums.add(SUM_LABEL_OLD, z_old);
    lane_sums.add(SUM_LABEL_NEW, z_new);
  }

  void write(int64_t image, int64_t y, int64_t x, int count) {
    const GradientView& view = task.gradient;
    Real* out = static_cast<Real*>(view.data) + image * view.batch_stride + y * view.row_stride + x * view.column_stride;
    for (int64_t c = 0; c < classes; c++) {
      Real* target = out + c * view.class_stride;
      for (int i = 0; i * L < count; i++) {
        const V g = gradient[i * classes + c];
        const int inside = count - i * L < L ? count - i * L : L;
        if (view.column_stride == 1 && inside == L)
          store(target + i * L, g);
        else
          for (int j = 0; j < inside; j++) target[(i * L + j) * view.column_stride] = g[j];
      }
    }
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
