// softmax_loss where logits are at label size already: a thread a pixel.
#pragma once

#include "softmax_task.cuh"

namespace ciss {
namespace cuda {

constexpr int PIXEL_THREADS = 128;

struct SoftmaxPixels {
  SoftmaxTask task;
  SoftmaxFlags flags;
  const DeviceCoefficients* coefficients = nullptr;
  float* sums = nullptr;          // [SUM_POISON, blocks]
  int32_t* not_finite = nullptr;  // set to 1 where a logit is not finite; 0 before

  CISS_HOST_DEVICE int64_t pixels() const { return task.batch * task.height * task.width; }
  CISS_HOST_DEVICE int64_t blocks() const { return (pixels() + PIXEL_THREADS - 1) / PIXEL_THREADS; }
};

// One tensor's logits of a pixel, in log2 units.
struct PixelLogits {
  const LogitsView& view;
  int64_t offset;
  float scale;

  CISS_DEVICE PixelLogits(const LogitsView& view, int64_t image, int64_t i, int64_t j, double factor)
      : view(view), offset(image * view.batch_stride + i * view.row_stride + j * view.column_stride),
        scale(float(1.4426950408889634 * factor)) {}
  CISS_DEVICE float operator()(int64_t c) const {
    return read_float(view.data, view.type, offset + c * view.class_stride) * scale;
  }
  // The log-sum of classes [first, last).
  CISS_DEVICE LogSum log_sum(int64_t first, int64_t last, bool& finite) const {
    LogSum s = {0.1f * PADDING, 0};
    for (int64_t c = first; c < last; c++) {
      const float z = (*this)(c);
      finite &= z - z == 0;
      const float max = fmaxf(s.max, z);
      s.sum = s.sum * fast_exp2(s.max - max) + fast_exp2(z - max);
      s.max = max;
    }
    return s;
  }
};

CISS_DEVICE void softmax_pixel(const SoftmaxPixels& all, int64_t image, int64_t i, int64_t j, float* sums) {
  const SoftmaxTask& task = all.task;
  const SoftmaxFlags& f = all.flags;
  const DeviceCoefficients& k = *all.coefficients;
  const PixelLogits z(task.student, image, i, j, 1), teacher(task.teacher, image, i, j, task.settings.alpha);
  const int64_t first_old = f.ckd ? 1 : 0, old = task.old_classes;  // CKD needs the background by itself
  bool finite = true;
  LogSum of[SECTIONS];
  of[BACKGROUND] = z.log_sum(0, first_old, finite);
  of[OLD_CLASSES] = z.log_sum(first_old, old, finite);
  of[NEW_CLASSES] = z.log_sum(old, task.classes, finite);
  of[TEACHER_BACKGROUND] = teacher.log_sum(0, f.teacher ? first_old : 0, finite);
  of[TEACHER_CLASSES] = teacher.log_sum(first_old, f.teacher ? old : 0, finite);
  if (!finite) *all.not_finite = 1;

  const int32_t label = read_label(task.label, image, i, j);
  const int region = region_of(task, label);
  int64_t target = -1;
  float target_weight = 0;
  if (is_in(region, LABELLED)) {
    target = label;
    target_weight = is_in(region, OLD) ? k.label_old : k.label_new;
    if (is_in(region, OLD)) sums[SUM_LABEL_OLD] += z(target);
    else sums[SUM_LABEL_NEW] += z(target);
  }
  if (f.focal && is_in(region, UNLABELLED)) {
    target = 0;
    for (int64_t c = 1; c < (f.teacher ? old : 0); c++)
      if (teacher(c) > teacher(target)) target = c;
  }
  float focal_factor = 0;
  const bool has_target = f.focal && target >= 0;
  const PixelWeights w =
      pixel_terms<true>(f, k, region, of, has_target, has_target ? z(target) : 0.f, sums, focal_factor);
  target_weight += focal_factor;

  float* const out = static_cast<float*>(task.gradient.data);
  const GradientView& g = task.gradient;
  const int64_t offset = image * g.batch_stride + i * g.row_stride + j * g.column_stride;
  float linear = 0, linear_background = 0;
  for (int64_t c = 0; c < task.classes; c++) {
    const bool alone = c < first_old, is_old = c < old;
    const float student_z = z(c);
    const float max = alone ? of[BACKGROUND].max : is_old ? of[OLD_CLASSES].max : of[NEW_CLASSES].max;
    float gradient = (alone ? w.background : is_old ? w.old : w.fresh) * fast_exp2(student_z - max);
    if (is_old && f.teacher_terms) {
      const float p = alone ? w.teacher_background * of[TEACHER_BACKGROUND].sum
                            : w.teacher * fast_exp2(teacher(c) - of[TEACHER_CLASSES].max);
      gradient -= (alone ? k.linear_background[region] : k.linear[region]) * p;
      if (alone) linear_background += p * student_z;
      else linear += p * student_z;
    }
    if (c == target) gradient -= target_weight;
    if (out) out[offset + c * g.class_stride] = gradient;
  }
  if (region == 0) {
    sums[SUM_LINEAR_UNLABELLED] += linear;
    sums[SUM_LINEAR_BACKGROUND_UNLABELLED] += linear_background;
  } else {
    sums[SUM_LINEAR_REST] += linear;
    sums[SUM_LINEAR_BACKGROUND_REST] += linear_background;
  }
}

CISS_KERNEL __launch_bounds__(PIXEL_THREADS) softmax_pixels_kernel(SoftmaxPixels all) {
  CISS_SHARED_MEMORY(memory);
  const int64_t pixel = int64_t(blockIdx.x) * PIXEL_THREADS + threadIdx.x;
  float sums[SUM_POISON] = {};
  if (pixel < all.pixels()) {
    const int64_t line = pixel / all.task.width;
    softmax_pixel(all, line / all.task.height, line % all.task.height, pixel % all.task.width, sums);
  }
  write_block_sums(sums, memory, all.sums, all.blocks());
}

}  // namespace cuda
}  // namespace ciss
