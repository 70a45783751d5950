// Logits already at label size: no enlargement, every pixel by itself.
#pragma once

#include "conversion.h"
#include "scratch.h"
#include "sigmoid_survey.h"
#include "softplus.h"

namespace ciss {
namespace CISS_ISA {

template <class Real>
struct SigmoidPixels {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  static constexpr int L = Simd<Real>::lanes;
  // Long enough runs in every channel for the processor's prefetcher, few enough for the L2 cache.
  static constexpr int TILE = 512;

  const SigmoidTask& task;
  int64_t row_length;  // pixels that lie one column stride apart: a row, or the whole image
  Real *student, *teacher;  // [channels][TILE]; the student's are overwritten with the gradient
  Real* pixel;              // [channels]
  int32_t* labels;          // [TILE]

  SigmoidPixels(const SigmoidTask& t, char* memory, size_t* bytes = nullptr) : task(t) {
    const auto one_run = [&](int64_t row_stride, int64_t column_stride) {
      return row_stride == column_stride * t.width;
    };
    const bool whole = one_run(t.student.row_stride, t.student.column_stride) &&
                       (!t.teacher.data || one_run(t.teacher.row_stride, t.teacher.column_stride)) &&
                       one_run(t.label.row_stride, t.label.column_stride) &&
                       (!t.gradient.data || one_run(t.gradient.row_stride, t.gradient.column_stride));
    row_length = whole ? t.width * t.height : t.width;
    Scratch scratch{memory};
    student = scratch.take<Real>(t.classes * TILE);
    teacher = scratch.take<Real>(t.teacher.data ? t.first_new() * TILE : 0);
    pixel = scratch.take<Real>(t.classes);
    labels = scratch.take<int32_t>(TILE);
    if (bytes) *bytes = scratch.used;
  }

  void run(const PixelRange& range, InvalidLabels& invalid, double sums[SIGMOID_TERM_COUNT]) {
    for (int64_t at = range.first, end = range.first + range.count; at < end;) {
      const int64_t y = at / row_length, x = at % row_length;
      int64_t count = TILE;
      if (count > row_length - x) count = row_length - x;
      if (count > end - at) count = end - at;
      tile(range.image, y, x, int(count), invalid, sums);
      at += count;
    }
  }

 private:
  void tile(int64_t image, int64_t y, int64_t x, int count, InvalidLabels& invalid, double sums[SIGMOID_TERM_COUNT]) {
    // The first row of a run that is a whole image is row 0, and its pixels are numbered through.
    read_new_classes(labels, task, image, y, x, count, invalid);
    for (int k = count; k % L; k++) labels[k] = 0;
    read(task.student, image, y, x, count, 0, task.classes, student);
    if (task.teacher.data) read(task.teacher, image, y, x, count, 1, task.first_new(), teacher);
    for (int64_t channel = 0; channel < task.classes; channel++) {
      const SigmoidTerm term = task.term_of(channel);
      sums[term] += task.weight[term] == 0 ? poison_of(channel, count)
                    : term == SIGMOID_KD ? distil(channel, count) : follow_labels(channel, count);
    }
    if (task.gradient.data) write(image, y, x, count);
  }

  CISS_LOOP void read(const LogitsView& view, int64_t image, int64_t y, int64_t x, int count, int64_t first,
                      int64_t channels, Real* out) {
    const Real log2e = Real(1.44269504088896340736);
    const int64_t start = image * view.batch_stride + y * view.row_stride + x * view.column_stride;
    const int padded = (count + L - 1) / L * L;
    if (view.class_stride == 1 && view.column_stride != 1) {  // channels_last: a pixel's channels are neighbours
      for (int j = 0; j < count; j++) {
        read_logits(pixel, view, start + j * view.column_stride, 1, channels, log2e);
        for (int64_t c = first; c < channels; c++) out[c * TILE + j] = pixel[c];
      }
    } else {
      for (int64_t c = first; c < channels; c++)
        read_logits(out + c * TILE, view, start + c * view.class_stride, view.column_stride, count, log2e);
    }
    for (int64_t c = first; c < channels; c++)
      for (int j = count; j < padded; j++) out[c * TILE + j] = 0;
  }

  M inside(int first, int count) const {
    M m;
    for (int k = 0; k < L; k++) m[k] = first + k < count ? -1 : 0;
    return m;
  }
  V scale_of(SigmoidTerm term) const {
    return splat(Real(task.weight[term] / (double(task.batch) * double(task.height) * double(task.width))));
  }

  double poison_of(int64_t channel, int count) {
    V poison = splat(Real(0));
    for (int j = 0; j < count; j += L) {
      V* const z = reinterpret_cast<V*>(student + channel * TILE + j);
      poison += *z * Real(0);
      *z = splat(Real(0));
    }
    return sum_of_lanes(poison);
  }

  // As in SigmoidBandState::distil.
  CISS_LOOP double distil(int64_t channel, int count) {
    const V scale = scale_of(SIGMOID_KD);
    V value = splat(Real(0)), poison = value;
    for (int j = 0; j < count; j += L) {
      V* const student_z = reinterpret_cast<V*>(student + channel * TILE + j);
      const V teacher_z = load(teacher + channel * TILE + j);
      poison += (*student_z + teacher_z) * Real(0);
      const M sign = sign_bit(M(*student_z > Real(0)));
      const V z = turned(*student_z, sign);
      V sigmoid, softplus, target, unused;
      sigmoid_parts<Real>(z, sigmoid, softplus);
      sigmoid_parts<Real>(turned(teacher_z, sign), target, unused);
      value += keep(inside(j, count), softplus - target * z);
      *student_z = turned(scale * (sigmoid - target), sign);
    }
    return sum_of_lanes(value) + sum_of_lanes(poison);
  }

  CISS_LOOP double follow_labels(int64_t channel, int count) {
    const V scale = scale_of(task.term_of(channel)), one = splat(Real(1));
    const V positive_weight = splat(Real(task.positive_weight));
    V value = splat(Real(0)), poison = value;
    for (int j = 0; j < count; j += L) {
      V* const z = reinterpret_cast<V*>(student + channel * TILE + j);
      poison += *z * Real(0);
      M positive;
      for (int k = 0; k < L; k++) positive[k] = channel > 0 && labels[j + k] == channel ? -1 : 0;
      const M sign = sign_bit(positive);
      V sigmoid, softplus;
      sigmoid_parts<Real>(turned(*z, sign), sigmoid, softplus);
      const V factor = select(positive, positive_weight, one);
      value += keep(inside(j, count), factor * softplus);
      *z = turned(scale * factor * sigmoid, sign);
    }
    return sum_of_lanes(value) + sum_of_lanes(poison);
  }

  CISS_LOOP void write(int64_t image, int64_t y, int64_t x, int count) {
    const GradientView& view = task.gradient;
    Real* out = static_cast<Real*>(view.data) + image * view.batch_stride + y * view.row_stride + x * view.column_stride;
    if (view.column_stride != 1) {
      for (int j = 0; j < count; j++)
        for (int64_t c = 0; c < task.classes; c++)
          out[j * view.column_stride + c * view.class_stride] = student[c * TILE + j];
      return;
    }
    for (int64_t c = 0; c < task.classes; c++) {
      Real* const target = out + c * view.class_stride;
      const Real* const in = student + c * TILE;
      int j = 0;
      if (reinterpret_cast<uintptr_t>(target) % sizeof(V) == 0)
        for (; j + L <= count; j += L) stream(target + j, load(in + j));
      memcpy(target + j, in + j, size_t(count - j) * sizeof(Real));
    }
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
