// One vector of pixels, every class: terms and gradient with explicit maxima. Serves logits at label size, double
// precision, and the pixels where the faster geometric form (softmax_geometric.h) would lose accuracy.
#pragma once

#include "simd.h"
#include "softmax_task.h"

namespace ciss {
namespace CISS_ISA {

// Coefficients as vectors of the kernel's arithmetic, and what follows from them.
template <class Real>
struct Constants {
  Real log_all[REGION_COUNT], log_old[REGION_COUNT], linear[REGION_COUNT], linear_background[REGION_COUNT];
  Real log_background_new, focal;
  bool log_old_used, ckd, ce_value, cce_value, kd_value, ali_value, focal_used, has_old_labels;
  bool teacher;             // there are teacher logits
  bool teacher_terms;       // and a term that needs their probabilities (not only their argmax)
  bool linear_unlabelled, linear_rest;  // such a term applies to unlabelled pixels, to the others
  bool separate_regions;    // such terms differ between the two, in gradient or in reported value
  uint32_t kd_region;

  explicit Constants(const SoftmaxTask& task) {
    const SoftmaxCoefficients& c = task.coefficients;
    for (int r = 0; r < REGION_COUNT; r++) {
      log_all[r] = Real(c.log_all[r]);
      log_old[r] = Real(c.log_old[r]);
      linear[r] = Real(c.linear[r]);
      linear_background[r] = Real(c.linear_background[r]);
    }
    log_background_new = Real(c.log_background_new);
    focal = Real(c.focal);
    log_old_used = c.uses_log_old();
    ckd = task.settings.active(CKD);
    ce_value = task.settings.active(CE);
    cce_value = task.settings.active(CCE);
    kd_value = task.settings.active(KD);
    ali_value = task.settings.active(ALI);
    focal_used = task.settings.active(FOCAL);
    has_old_labels = task.has_old_labels;
    teacher = task.teacher.data != nullptr;
    kd_region = task.settings.kd_region;
    linear_unlabelled = ali_value || ckd || (kd_value && (kd_region & UNLABELLED));
    linear_rest = ckd || (kd_value && (kd_region & REST));
    teacher_terms = teacher && (linear_unlabelled || linear_rest);
    separate_regions = ali_value || (kd_value && kd_region != EVERYWHERE);
  }
};

// Which region each pixel of a vector is in, one mask per region; none for lanes without a pixel.
template <class Real>
struct RegionMasks {
  MaskOf<Real> unlabelled, old, fresh, ignored;

  __attribute__((always_inline)) MaskOf<Real> in(uint32_t set) const {
    MaskOf<Real> m{};
    if (set & UNLABELLED) m |= unlabelled;
    if (set & OLD) m |= old;
    if (set & NEW) m |= fresh;
    if (set & IGNORED) m |= ignored;
    return m;
  }
  __attribute__((always_inline)) VectorOf<Real> pick(const Real by_region[REGION_COUNT], bool has_old) const {
    VectorOf<Real> v = keep(unlabelled, splat(by_region[0])) + keep(fresh, splat(by_region[2])) +
                       keep(ignored, splat(by_region[3]));
    return has_old ? v + keep(old, splat(by_region[1])) : v;
  }
};

// Sums kept per lane while a few hundred pixels are added, then moved to double.
template <class Real>
struct LaneSums {
  VectorOf<Real> value[SUM_COUNT];
  LaneSums() {
    for (int i = 0; i < SUM_COUNT; i++) value[i] = splat(Real(0));
  }
  __attribute__((always_inline)) void add(int sum, VectorOf<Real> x) { value[sum] += x; }
  void move_to(double sums[SUM_COUNT]) {
    for (int i = 0; i < SUM_COUNT; i++) {
      sums[i] += sum_of_lanes(value[i]);
      value[i] = splat(Real(0));
    }
  }
};

// The focal term of a target with log2-probability `log2_p`: value in log2 units, and the factor g of its gradient
// g (p_c - [c = target]).
template <class Real>
CISS_INLINE void focal_terms(VectorOf<Real> log2_p, VectorOf<Real>& value, VectorOf<Real>& factor) {
  const VectorOf<Real> p = exp2<Real>(log2_p), rest = Real(1) - p;
  value = -rest * rest * log2_p;
  factor = rest * rest - Real(2 * 0.693147180559945309417) * p * rest * log2_p;
}

// Target channel of every lane for the focal term: the label, or the teacher's argmax where unlabelled; -1: none.
template <class Real>
CISS_INLINE MaskOf<Real> focal_target(const RegionMasks<Real>& region, MaskOf<Real> label, MaskOf<Real> pseudo_label) {
  const MaskOf<Real> nothing = MaskOf<Real>{} - 1;
  return region.unlabelled ? pseudo_label : ((region.old | region.fresh) ? label : nothing);
}

// z: [classes + teacher_classes] vectors, student then teacher, in log2 units; overwritten.
// gradient: [classes] vectors, receives the gradient without the labels' own -z_y (linear, added elsewhere).
// `label` is read where focal is asked for.
template <class Real>
static void exact_pixels(const SoftmaxTask& task, const Constants<Real>& k, const RegionMasks<Real>& region,
                         MaskOf<Real> label, VectorOf<Real>* z, VectorOf<Real>* gradient, LaneSums<Real>& sums) {
  typedef VectorOf<Real> V;
  typedef MaskOf<Real> M;
  const int64_t classes = task.classes, old_classes = task.old_classes, teacher_classes = task.teacher_classes();
  const V lowest = splat(Simd<Real>::lowest), zero = splat(Real(0));
  V* const teacher = z + classes;

  // Separate maxima: the old classes' own softmax must stay accurate where new classes dominate, and vice versa.
  V max_old = lowest, max_new = lowest, max_teacher = lowest;
  for (int64_t c = 0; c < old_classes; c++) max_old = larger(max_old, z[c]);
  for (int64_t c = old_classes; c < classes; c++) max_new = larger(max_new, z[c]);
  M pseudo_label{};
  if (k.focal_used && k.teacher) {
    for (int64_t c = 0; c < teacher_classes; c++) {
      const M higher = teacher[c] > max_teacher;
      pseudo_label = higher ? (M{} + typename Simd<Real>::Integer(c)) : pseudo_label;
      max_teacher = select(higher, teacher[c], max_teacher);
    }
  } else {
    for (int64_t c = 0; c < teacher_classes; c++) max_teacher = larger(max_teacher, teacher[c]);
  }
  const V max_all = larger(max_old, max_new);

  V sum_old = zero, sum_new = zero, sum_teacher = zero;
  for (int64_t c = 0; c < old_classes; c++) sum_old += gradient[c] = exp2<Real>(z[c] - max_old);
  for (int64_t c = old_classes; c < classes; c++) sum_new += gradient[c] = exp2<Real>(z[c] - max_new);
  const V scale_old = old_classes > 0 ? exp2<Real>(max_old - max_all) : zero;
  const V scale_new = old_classes < classes ? exp2<Real>(max_new - max_all) : zero;
  const V sum_all = sum_old * scale_old + sum_new * scale_new;
  const V log_all = max_all + log2<Real>(sum_all), inverse_all = reciprocal(sum_all);

  V weight_all = region.pick(k.log_all, k.has_old_labels);
  V weight_old = region.pick(k.log_old, k.has_old_labels);
  if (k.ce_value) sums.add(SUM_LOG_CE, keep(region.in(LABELLED), log_all));
  if (k.cce_value) sums.add(SUM_LOG_CCE, keep(region.in(UNLABELLED | LABELLED), log_all));
  if (k.ali_value) sums.add(SUM_LOG_ALI, keep(region.unlabelled, log_all));
  if (k.log_old_used) {
    const V log_old = max_old + log2<Real>(sum_old);
    if (k.cce_value) sums.add(SUM_LOG_CCE, -keep(region.in(UNLABELLED | OLD), log_old));
    if (k.kd_value) sums.add(SUM_LOG_KD, keep(region.in(k.kd_region), log_old));
    weight_old *= reciprocal(sum_old);
  }
  M target{};
  V focal_factor = zero;
  if (k.focal_used) {
    target = focal_target<Real>(region, label, pseudo_label);
    V z_target = zero;
    for (int i = 0; i < Simd<Real>::lanes; i++)
      if (target[i] >= 0) z_target[i] = z[target[i]][i];
    V value;
    focal_terms<Real>(z_target - log_all, value, focal_factor);
    focal_factor = keep(target >= 0, k.focal * focal_factor);
    sums.add(SUM_FOCAL, keep(target >= 0, value));
    weight_all += focal_factor;
  }
  weight_all *= inverse_all;

  V weight_background_new = zero;  // CKD: the background stands for itself and the new classes
  V max_background_new = max_new;
  const M present = region.in(EVERYWHERE);
  if (k.teacher_terms) {
    for (int64_t c = 0; c < teacher_classes; c++) sum_teacher += teacher[c] = exp2<Real>(teacher[c] - max_teacher);
    const V inverse_teacher = reciprocal(sum_teacher);
    const V weight_teacher = region.pick(k.linear, k.has_old_labels) * inverse_teacher;
    V linear = zero;
    for (int64_t c = 1; c < teacher_classes; c++) linear += teacher[c] * z[c];
    linear *= inverse_teacher;
    const V p_background = teacher[0] * inverse_teacher, linear_background = p_background * z[0];
    sums.add(SUM_LINEAR_UNLABELLED, keep(region.unlabelled, linear));
    sums.add(SUM_LINEAR_REST, keep(region.in(REST), linear));
    sums.add(SUM_LINEAR_BACKGROUND_UNLABELLED, keep(region.unlabelled, linear_background));
    sums.add(SUM_LINEAR_BACKGROUND_REST, keep(region.in(REST), linear_background));
    if (k.ckd) {
      max_background_new = larger(max_new, z[0]);
      const V sum = sum_new * (old_classes < classes ? exp2<Real>(max_new - max_background_new) : zero) +
                    exp2<Real>(z[0] - max_background_new);
      sums.add(SUM_LOG_CKD, keep(present, log_all - p_background * (max_background_new + log2<Real>(sum))));
      weight_background_new = keep(present, -k.log_background_new * p_background) * reciprocal(sum);
    }
    const V to_old = weight_all * scale_old + weight_old;
    gradient[0] = gradient[0] * to_old - region.pick(k.linear_background, k.has_old_labels) * p_background;
    if (k.ckd) gradient[0] += exp2<Real>(z[0] - max_background_new) * weight_background_new;
    for (int64_t c = 1; c < old_classes; c++) gradient[c] = gradient[c] * to_old - teacher[c] * weight_teacher;
  } else {
    const V to_old = weight_all * scale_old + weight_old;
    for (int64_t c = 0; c < old_classes; c++) gradient[c] *= to_old;
  }
  V to_new = weight_all * scale_new;
  if (k.ckd && old_classes < classes) to_new += exp2<Real>(max_new - max_background_new) * weight_background_new;
  for (int64_t c = old_classes; c < classes; c++) gradient[c] *= to_new;

  if (k.focal_used)
    for (int i = 0; i < Simd<Real>::lanes; i++)
      if (target[i] >= 0) gradient[target[i]][i] -= focal_factor[i];
}

}  // namespace CISS_ISA
}  // namespace ciss
