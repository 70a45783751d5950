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
  // Pixels of a tile: long enough runs in every class for the processor's prefetcher, few enough for the L2 cache.
  static constexpr int TILE_PIXELS = 512, TILE_VECTORS = TILE_PIXELS / L;

  const SoftmaxTask& task;
  const Constants<Real> constants;
  LaneSums<Real> lane_sums;
  int64_t classes, all_classes;
  int64_t row_length;  // pixels that lie one column stride apart: a row, or the whole image
  V* logits;           // [TILE_VECTORS][all_classes]
  V* gradient;         // [TILE_VECTORS][classes]
  Real* row;           // [the larger of TILE_PIXELS and all_classes]
  int32_t* labels;     // [TILE_PIXELS]

  FullResolutionState(const SoftmaxTask& t, char* memory, size_t* bytes = nullptr)
      : task(t), constants(t), classes(t.classes), all_classes(t.classes + t.teacher_classes()) {
    const auto one_run = [&](int64_t row_stride, int64_t column_stride) {
      return row_stride == column_stride * t.width;
    };
    const bool whole = one_run(t.student.row_stride, t.student.column_stride) &&
                       (!t.teacher.data || one_run(t.teacher.row_stride, t.teacher.column_stride)) &&
                       one_run(t.label.row_stride, t.label.column_stride) &&
                       (!t.gradient.data || one_run(t.gradient.row_stride, t.gradient.column_stride));
    row_length = whole ? t.width * t.height : t.width;
    Scratch scratch{memory};
    logits = scratch.take<V>(TILE_VECTORS * all_classes);
    gradient = scratch.take<V>(TILE_VECTORS * classes);
    row = scratch.take<Real>(all_classes > TILE_PIXELS ? all_classes : TILE_PIXELS);
    labels = scratch.take<int32_t>(TILE_PIXELS);
    if (bytes) *bytes = scratch.used;
  }

  void run(const PixelRange& range, double sums[SUM_COUNT]) {
    for (int64_t pixel = range.first, end = range.first + range.count; pixel < end;) {
      const int64_t y = pixel / row_length, x = pixel % row_length;
      int64_t count = TILE_PIXELS;
      if (count > row_length - x) count = row_length - x;
      if (count > end - pixel) count = end - pixel;
      tile(range.image, y, x, int(count));
      lane_sums.move_to(sums);
      pixel += count;
    }
  }

  CISS_LOOP void tile(int64_t image, int64_t y, int64_t x, int count) {
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

  CISS_LOOP void read(const LogitsView& view, int64_t image, int64_t y, int64_t x, int count, Real scale, int64_t first,
                      int64_t channels) {
    const int64_t start = image * view.batch_stride + y * view.row_stride + x * view.column_stride;
    V poison = splat(Real(0));
    if (view.class_stride == 1 && view.column_stride != 1) {  // channels_last: a pixel's classes are neighbours
      Real* out = reinterpret_cast<Real*>(logits);
      const int padded = (count + L - 1) / L * L;
      for (int j = 0; j < padded; j++) {
        if (j < count) read_logits(row, view, start + j * view.column_stride, 1, channels, scale);
        Real* lane = out + (j / L * all_classes + first) * L + j % L;
        for (int64_t c = 0; c < channels; c++) lane[c * L] = row[c];
      }
      for (int i = 0; i < padded / L; i++)
        for (int64_t c = first; c < first + channels; c++) poison += logits[i * all_classes + c] * Real(0);
    } else {
      const int whole = count / L;
      const int64_t bytes = element_bytes(view.type);
      for (int64_t c = 0; c < channels; c++) {
        // The runs are too short for the processor to guess the next one.
        const char* next = static_cast<const char*>(view.data) + (start + (c + 1) * view.class_stride) * bytes;
        if (c + 1 < channels)
          for (int64_t j = 0; j < count * bytes; j += 64) __builtin_prefetch(next + j, 0, 2);
        read_logits(row, view, start + c * view.class_stride, view.column_stride, count, scale);
        for (int j = count; j % L; j++) row[j] = 0;
        V* out = logits + first + c;
        for (int i = 0; i < whole; i++) {
          const V z = load(row + i * L);
          poison += z * Real(0);
          out[i * all_classes] = z;
        }
        if (count % L) {
          out[whole * all_classes] = load(row + whole * L);
          poison += out[whole * all_classes] * Real(0);
        }
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

  CISS_LOOP void write(int64_t image, int64_t y, int64_t x, int count) {
    const GradientView& view = task.gradient;
    Real* out = static_cast<Real*>(view.data) + image * view.batch_stride + y * view.row_stride + x * view.column_stride;
    if (view.column_stride != 1) {
      const Real* in = reinterpret_cast<const Real*>(gradient);
      for (int j = 0; j < count; j++) {
        const Real* lane = in + int64_t(j / L) * classes * L + j % L;
        Real* target = out + j * view.column_stride;
        for (int64_t c = 0; c < classes; c++) target[c * view.class_stride] = lane[c * L];
      }
      return;
    }
    const int whole = count / L;
    for (int64_t c = 0; c < classes; c++) {
      Real* target = out + c * view.class_stride;
      const V* in = gradient + c;
      if (reinterpret_cast<uintptr_t>(target) % sizeof(V) == 0)
        for (int i = 0; i < whole; i++) stream(target + i * L, in[i * classes]);
      else
        for (int i = 0; i < whole; i++) store(target + i * L, in[i * classes]);
      if (count % L) memcpy(target + whole * L, in + whole * classes, size_t(count % L) * sizeof(Real));
    }
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
