// What the kernels of softmax_loss share: settings, where a class lies in their tables, the maths of a pixel.
// ciss_fast/ops/softmax_loss/README.md derives the formulas.
#pragma once

#include "cells.cuh"
#include "softmax_loss.h"

namespace ciss {
namespace cuda {

// Classes in the order of the tables, in sections. A section is filled up to whole SECTION_UNITs by classes whose logits
// are PADDING, so that it can be dealt out evenly.
enum Section { BACKGROUND, OLD_CLASSES, NEW_CLASSES, TEACHER_BACKGROUND, TEACHER_CLASSES, SECTIONS };
constexpr int SECTION_UNIT = 8;
constexpr float PADDING = -1e30f;

struct SoftmaxLayout {
  int begin[SECTIONS + 1] = {};
  int classes = 0, old_classes = 0;
  int background = 0;  // 1: the background has sections of its own, which CKD needs

  SoftmaxLayout() = default;
  SoftmaxLayout(int64_t classes, int64_t old_classes, bool teacher, bool background)
      : classes(int(classes)), old_classes(int(old_classes)), background(background) {
    const int64_t old = old_classes - this->background, old_sections[2] = {this->background, old};
    const int64_t sizes[SECTIONS] = {old_sections[0], old, classes - old_classes, teacher ? old_sections[0] : 0,
                                     teacher ? old : 0};
    for (int s = 0; s < SECTIONS; s++)
      begin[s + 1] = begin[s] + int((sizes[s] + SECTION_UNIT - 1) / SECTION_UNIT * SECTION_UNIT);
  }
  CISS_HOST_DEVICE int positions() const { return begin[SECTIONS]; }
  CISS_HOST_DEVICE int student_positions() const { return begin[TEACHER_BACKGROUND]; }
  // Where the student's class c lies.
  CISS_HOST_DEVICE int position(int c) const {
    if (c >= old_classes) return begin[NEW_CLASSES] + c - old_classes;
    return c < background ? c : begin[OLD_CLASSES] + c - background;
  }
  // Where the teacher's class c lies.
  CISS_HOST_DEVICE int teacher_position(int c) const {
    return c < background ? begin[TEACHER_BACKGROUND] + c : begin[TEACHER_CLASSES] + c - background;
  }
};

// The student's classes in the partial gradients, for `gather`.
struct StudentPosition {
  SoftmaxLayout layout;
  CISS_HOST_DEVICE int64_t operator()(int64_t channel) const { return layout.position(int(channel)); }
};

// Which of the sums and gradients there are; follows from the weights alone.
struct SoftmaxFlags {
  bool ce = false, cce = false, kd = false, ckd = false, ali = false, focal = false, log_old = false;
  bool teacher = false;        // there are teacher logits
  bool teacher_terms = false;  // and a term that needs their probabilities (not only their argmax)
  bool linear_unlabelled = false, linear_rest = false;  // such a term applies to unlabelled pixels, to the others
  bool separate_regions = false;  // such terms differ between the two, in gradient or in reported value
  uint32_t kd_region = 0;

  SoftmaxFlags() = default;
  SoftmaxFlags(const SoftmaxSettings& s, bool teacher)
      : ce(s.active(CE)), cce(s.active(CCE)), kd(s.active(KD)), ckd(s.active(CKD)), ali(s.active(ALI)),
        focal(s.active(FOCAL)), log_old(cce || kd), teacher(teacher), kd_region(s.kd_region) {
    linear_unlabelled = ali || ckd || (kd && (kd_region & UNLABELLED));
    linear_rest = ckd || (kd && (kd_region & REST));
    teacher_terms = teacher && (linear_unlabelled || linear_rest);
    separate_regions = ali || (kd && kd_region != EVERYWHERE);
  }
};

// Made on the device once the regions are counted.
struct DeviceCoefficients {
  float log_all[REGION_COUNT], log_old[REGION_COUNT], linear[REGION_COUNT], linear_background[REGION_COUNT];
  float log_background_new, focal, label_old, label_new;
  double divisor[TERM_COUNT];
};

// Region of a label, as the number of its bit; wrong labels count as ignored.
CISS_DEVICE int region_of(const SoftmaxTask& task, int32_t label) {
  if (label == int32_t(task.settings.ignore_index) || label < 0 || label >= int32_t(task.classes)) return 3;
  if (label == 0 && task.old_classes > 0) return 0;
  return label < int32_t(task.old_classes) ? 1 : 2;
}
CISS_DEVICE bool is_in(int region, uint32_t set) { return set >> region & 1; }


// The sum of 2^z over some classes, as sum * 2^max. The kernels of the geometric form leave max at 0 throughout.
struct LogSum {
  float max = 0, sum = 0;

  CISS_DEVICE float log2() const { return max + fast_log2(sum); }
};
template <bool EXACT>
CISS_DEVICE float scale_between(float max, float larger_max) {
  return EXACT ? fast_exp2(max - larger_max) : 1.f;
}
template <bool EXACT>
CISS_DEVICE LogSum combined(LogSum a, LogSum b) {
  if (!EXACT) return {0, a.sum + b.sum};
  const float max = fmaxf(a.max, b.max);
  return {max, a.sum * fast_exp2(a.max - max) + b.sum * fast_exp2(b.max - max)};
}

// Factors of 2^(z - max of its section) in a pixel's gradient; the teacher's are to be split by region.
struct PixelWeights {
  float background = 0, old = 0, fresh = 0, teacher_background = 0, teacher = 0;
};

// A pixel: adds to `sums` what needs no single class, and returns the weights. `of`: the sums of its sections.
// z_target, has_target: the focal term's target; its factor is returned in `focal_factor`.
template <bool EXACT>
CISS_DEVICE PixelWeights pixel_terms(const SoftmaxFlags& flags, const DeviceCoefficients& k, int region,
                                     const LogSum of[SECTIONS], bool has_target, float z_target, float* sums,
                                     float& focal_factor) {
  const LogSum old = flags.ckd ? combined<EXACT>(of[BACKGROUND], of[OLD_CLASSES]) : of[OLD_CLASSES];
  const LogSum all = combined<EXACT>(old, of[NEW_CLASSES]);
  const float log_all = all.log2();
  if (flags.ce && is_in(region, LABELLED)) sums[SUM_LOG_CE] += log_all;
  if (flags.cce && is_in(region, UNLABELLED | LABELLED)) sums[SUM_LOG_CCE] += log_all;
  if (flags.ali && is_in(region, UNLABELLED)) sums[SUM_LOG_ALI] += log_all;
  float weight_all = k.log_all[region];
  if (has_target) {
    const float log_p = z_target - log_all, p = fast_exp2(log_p), rest = 1 - p;
    sums[SUM_FOCAL] -= rest * rest * log_p;
    focal_factor = k.focal * (rest * rest - 1.38629436f * p * rest * log_p);
    weight_all += focal_factor;
  }
  weight_all *= fast_reciprocal(all.sum);
  PixelWeights w;
  w.fresh = weight_all * scale_between<EXACT>(of[NEW_CLASSES].max, all.max);
  w.old = weight_all * scale_between<EXACT>(of[OLD_CLASSES].max, all.max);
  w.background = weight_all * scale_between<EXACT>(of[BACKGROUND].max, all.max);
  if (flags.log_old) {
    const float log_old = old.log2();
    if (flags.cce && is_in(region, UNLABELLED | OLD)) sums[SUM_LOG_CCE] -= log_old;
    if (flags.kd && is_in(region, flags.kd_region)) sums[SUM_LOG_KD] += log_old;
    const float weight_old = k.log_old[region] * fast_reciprocal(old.sum);
    w.old += weight_old * scale_between<EXACT>(of[OLD_CLASSES].max, old.max);
    w.background += weight_old * scale_between<EXACT>(of[BACKGROUND].max, old.max);
  }
  if (!flags.teacher_terms) return w;
  const LogSum teacher =
      flags.ckd ? combined<EXACT>(of[TEACHER_BACKGROUND], of[TEACHER_CLASSES]) : of[TEACHER_CLASSES];
  const float inverse = fast_reciprocal(teacher.sum);
  w.teacher = inverse * scale_between<EXACT>(of[TEACHER_CLASSES].max, teacher.max);
  w.teacher_background = inverse * scale_between<EXACT>(of[TEACHER_BACKGROUND].max, teacher.max);
  if (flags.ckd) {  // the background stands for itself and the new classes
    const float p = of[TEACHER_BACKGROUND].sum * w.teacher_background;
    const LogSum both = combined<EXACT>(of[BACKGROUND], of[NEW_CLASSES]);
    sums[SUM_LOG_CKD] += log_all - p * both.log2();
    const float pull = k.log_background_new * p * fast_reciprocal(both.sum);
    w.fresh -= pull * scale_between<EXACT>(of[NEW_CLASSES].max, both.max);
    w.background -= pull * scale_between<EXACT>(of[BACKGROUND].max, both.max);
  }
  return w;
}

}  // namespace cuda
}  // namespace ciss
