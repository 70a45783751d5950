// sigmoid_loss where logits are at label size already, a thread a pixel; and the end of both ways.
#pragma once

#include "sigmoid_cells.cuh"

namespace ciss {
namespace cuda {

constexpr int SIGMOID_PIXEL_THREADS = 128;

struct SigmoidPixels {
  SigmoidTask task;
  float* sums = nullptr;          // [SIGMOID_TERM_COUNT, blocks]
  int32_t* not_finite = nullptr;  // set to 1 where a logit is not finite; 0 before

  CISS_HOST_DEVICE int64_t pixels() const { return task.batch * task.height * task.width; }
  CISS_HOST_DEVICE int64_t blocks() const { return (pixels() + SIGMOID_PIXEL_THREADS - 1) / SIGMOID_PIXEL_THREADS; }
};

CISS_DEVICE void sigmoid_pixel(const SigmoidPixels& all, int64_t image, int64_t i, int64_t j, float* sums) {
  const SigmoidTask& task = all.task;
  const int32_t label = new_class_of(task, read_label(task.label, image, i, j));
  const GradientView& g = task.gradient;
  float* const out = static_cast<float*>(g.data);
  const int64_t offset = image * g.batch_stride + i * g.row_stride + j * g.column_stride;
  const float scale[SIGMOID_TERM_COUNT] = {float(task.weight[MBCE] / task.pixels()),
                                           float(task.weight[SIGMOID_KD] / task.pixels()),
                                           float(task.weight[AC] / task.pixels())};
  bool finite = true;
  for (int64_t c = 0; c < task.classes; c++) {
    const float z = read_logit(task.student, image, c, i, j) * 1.44269504f;
    finite &= z - z == 0;
    float gradient = 0, value = 0;
    if (c > 0 && c < task.first_new()) {
      if (task.active(SIGMOID_KD)) {  // as in SigmoidCell::distil
        const float teacher = read_logit(task.teacher, image, c, i, j) * 1.44269504f;
        finite &= teacher - teacher == 0;
        const bool turn = z > 0;
        const SigmoidParts parts(turned(z, turn)), target(turned(teacher, turn));
        value = parts.softplus - target.sigmoid * turned(z, turn);
        gradient = turned(parts.sigmoid - target.sigmoid, turn);
      }
      sums[SIGMOID_KD] += value;
      gradient *= scale[SIGMOID_KD];
    } else if (c == 0) {
      if (task.active(AC)) {
        const SigmoidParts parts(z);
        value = parts.softplus;
        gradient = parts.sigmoid;
      }
      sums[AC] += value;
      gradient *= scale[AC];
    } else {
      if (task.active(MBCE)) {
        const bool positive = label == c;
        const float weight = positive ? float(task.positive_weight) : 1.f;
        const SigmoidParts parts(turned(z, positive));
        value = weight * parts.softplus;
        gradient = turned(weight * parts.sigmoid, positive);
      }
      sums[MBCE] += value;
      gradient *= scale[MBCE];
    }
    if (out) out[offset + c * g.class_stride] = gradient;
  }
  if (!finite) *all.not_finite = 1;
}

CISS_KERNEL __launch_bounds__(SIGMOID_PIXEL_THREADS) sigmoid_pixels_kernel(SigmoidPixels all) {
  CISS_SHARED_MEMORY(memory);
  const int64_t pixel = int64_t(blockIdx.x) * SIGMOID_PIXEL_THREADS + threadIdx.x;
  float sums[SIGMOID_TERM_COUNT] = {};
  if (pixel < all.pixels()) {
    const int64_t line = pixel / all.task.width;
    sigmoid_pixel(all, line / all.task.height, line % all.task.height, pixel % all.task.width, sums);
  }
  write_block_sums(sums, memory, all.sums, all.blocks());
}

// Values of the terms and the total from sums in log2 units: chunks [rows, SUM_CHUNKS]. Rows [first[t], end[t]) belong to
// term t.
struct SigmoidRows {
  int first[SIGMOID_TERM_COUNT] = {}, end[SIGMOID_TERM_COUNT] = {};
};

CISS_KERNEL sigmoid_finish_kernel(SigmoidTask task, const double* chunks, SigmoidRows rows, const int32_t* not_finite,
                                  float* total, float* values) {
  if (threadIdx.x != 0) return;
  double sum = *not_finite ? double(__uint_as_float(0x7fc00000u)) : 0;
  for (int t = 0; t < SIGMOID_TERM_COUNT; t++) {
    double value = 0;
    for (int row = rows.first[t]; row < rows.end[t]; row++) value += sum_of_chunks(chunks, row);
    value *= 0.69314718055994530942 / task.pixels();
    values[t] = float(value);
    if (task.active(t)) sum += task.weight[t] * value;
  }
  *total = float(sum);
}

}  // namespace cuda
}  // namespace ciss
