// The fast form of a vector of lanes, single precision.
//
// Along a lane the logits are linear, z(k) = centre + k slope, so e^z is a geometric sequence: e^centre times powers
// of e^slope. Three exponentials per class and lane replace one per class and pixel. The way back needs
// sum_k w_k R^k and sum_k k w_k R^k, which two Horner recurrences give in two multiply-adds per class and pixel.
//
// All exponents are base 2 and relative to the shift of BandState::prepare_row. The sequences start at the lane's
// centre and run outwards, forwards with R and backwards with 1/R. `geometric_lanes` returns false, having changed
// nothing, where that would lose accuracy: a class whose sequence may leave the range of float where it matters, or a
// sum so small that its terms may have been flushed.
#pragma once

#include "softmax_band.h"

namespace ciss {
namespace CISS_ISA {

// A sum below this may lack terms that were flushed or dropped: 2^-60, so that a dropped term (below 2^-120) is at
// most 2^-60 of it. The Horner recurrences stay finite: their values are below 2^60 / SMALLEST_SUM * weights.
constexpr float SMALLEST_SUM = 8.67361737988e-19f;
constexpr float LOWEST_CENTRE = -120.f, DROPPED_BELOW = -122.f, LARGEST_GROWTH = 60.f;

// RUN >= 1: lanes of one pixel have nothing to gain.
template <int RUN>
struct GeometricLanes {
  static constexpr int SLOTS = 2 * RUN + 1;
  typedef BandState<float> State;

  State& state;
  const State::LaneVector& v;
  Float* const starts;  // [all_classes][3]: value at the centre, ratio, inverse ratio
  FloatMask unsafe{};   // lanes where some class needs the exact form

  GeometricLanes(State& s, const State::LaneVector& lane_vector)
      : state(s), v(lane_vector), starts(s.geometric_scratch) {}

  // First value and ratios of the sequences of classes [first, last).
  CISS_LOOP void start_sequences(int64_t first, int64_t last) {
    for (int64_t c = first; c < last; c++) {
      Float centre, slope;
      state.interpolate(v, c, centre, slope);
      const Float growth = magnitude(slope) * float(RUN);
      const FloatMask tame = (centre > LOWEST_CENTRE) & (growth <= LARGEST_GROWTH);
      const FloatMask negligible = centre + growth < DROPPED_BELOW;
      unsafe |= ~tame & ~negligible;
      const Float ratio = exp2_in_range<float>(keep(tame, slope));
      starts[3 * c] = keep(tame, exp2_in_range<float>(centre));
      starts[3 * c + 1] = ratio;
      starts[3 * c + 2] = reciprocal(ratio);
    }
  }

  // Adds the sequences of classes [first, last) to sums[SLOTS].
  CISS_LOOP void add_sequences(int64_t first, int64_t last, Float* sums) const {
    Float forwards[RUN + 1], backwards[RUN + 1];
    for (int k = 0; k <= RUN; k++) {
      forwards[k] = sums[RUN + k];
      backwards[k] = sums[RUN - k];
    }
    for (int64_t c = first; c < last; c++) {
      Float ahead = starts[3 * c], behind = ahead;
      const Float ratio = starts[3 * c + 1], inverse = starts[3 * c + 2];
      forwards[0] += ahead;
#pragma GCC unroll 8
      for (int k = 1; k <= RUN; k++) {
        ahead *= ratio;
        forwards[k] += ahead;
        behind *= inverse;
        backwards[k] += behind;
      }
    }
    for (int k = 0; k <= RUN; k++) sums[RUN + k] = forwards[k];
    for (int k = 1; k <= RUN; k++) sums[RUN - k] = backwards[k];
  }

  // sum_k w_k E_c(k) and sum_k k w_k E_c(k), k = -RUN..RUN.
  __attribute__((always_inline)) void weigh_sequence(int64_t c, const Float* w, Float& plain, Float& moment) const {
    const Float start = starts[3 * c], ratio = starts[3 * c + 1], inverse = starts[3 * c + 2];
    Float ahead = w[2 * RUN], ahead_moment = ahead, behind = w[0], behind_moment = behind;
#pragma GCC unroll 8
    for (int k = RUN - 1; k >= 1; k--) {
      ahead = ahead * ratio + w[RUN + k];
      ahead_moment = ahead_moment * ratio + ahead;
      behind = behind * inverse + w[RUN - k];
      behind_moment = behind_moment * inverse + behind;
    }
    // Now ahead = sum_{k>=1} w_k R^(k-1) and ahead_moment = sum_{k>=1} k w_k R^(k-1); likewise behind.
    plain = start * (w[RUN] + ahead * ratio + behind * inverse);
    moment = start * (ahead_moment * ratio - behind_moment * inverse);
  }

  FloatMask in_slot(FloatMask word, int slot) const { return (word << (31 - slot)) < 0; }
  FloatMask word(int region) const {
    FloatMask m;
    memcpy(&m, state.words + region * state.words_stride + v.flat, sizeof m);
    return m;
  }

  RegionMasks<float> region_masks(const FloatMask words[REGION_COUNT], int slot) const {
    return {in_slot(words[0], slot), in_slot(words[1], slot), in_slot(words[2], slot), in_slot(words[3], slot)};
  }

  // 1 / the teacher's sum at every slot, by region (or all in `rest` where no term tells the regions apart).
  struct TeacherWeights {
    Float unlabelled[SLOTS], rest[SLOTS];
  };

  CISS_LOOP bool run();
  void pseudo_labels(FloatMask* best) const;
  void focal_terms_of_targets(const FloatMask* pseudo_label, const Float* sum_old, const Float* sum_new,
                              const FloatMask words[REGION_COUNT], Float* weight_all);
  void teacher_part(const TeacherWeights& w, bool unlabelled_pixels, bool other_pixels);
  template <bool UNLABELLED_PIXELS, bool OTHER_PIXELS>
  CISS_LOOP void teacher_gradient(int64_t first, int64_t last, const TeacherWeights& w, float to_unlabelled, float to_rest,
                        int sum_unlabelled, int sum_rest);
};

// Teacher's argmax at every slot.
template <int RUN>
void GeometricLanes<RUN>::pseudo_labels(FloatMask* best) const {
  Float highest[SLOTS];
  for (int slot = 0; slot < SLOTS; slot++) {
    highest[slot] = splat(Simd<float>::lowest);
    best[slot] = FloatMask{};
  }
  for (int64_t c = state.classes; c < state.all_classes; c++) {
    Float centre, slope;
    state.interpolate(v, c, centre, slope);
    const FloatMask channel = FloatMask{} + int32_t(c - state.classes);
    for (int slot = 0; slot < SLOTS; slot++) {
      const Float z = centre + float(slot - RUN) * slope;
      const FloatMask higher = z > highest[slot];
      highest[slot] = select(higher, z, highest[slot]);
      best[slot] = higher ? channel : best[slot];
    }
  }
}

// Focal term at every slot: value, factor of the softmax's gradient (added to weight_all), the targets' own part.
// Neighbouring pixels mostly have one target: its logits are looked up, and its gradient is stored, only where a lane's
// target changes.
template <int RUN>
void GeometricLanes<RUN>::focal_terms_of_targets(const FloatMask* pseudo_label, const Float* sum_old,
                                                 const Float* sum_new, const FloatMask words[REGION_COUNT],
                                                 Float* weight_all) {
  const int L = State::L;
  int64_t pixel[L];  // the lane's pixel at slot 0, counted along the strip
  for (int i = 0; i < L; i++) pixel[i] = state.lane_table.pixel_of(v, i, 0, state.task.label_width);
  FloatMask current = FloatMask{} - 1;  // target of each lane; -1: none
  Float centre = splat(0.f), slope = centre, count = centre, moment = centre;
  const auto store_target = [&](int i) {
    if (current[i] >= 0)
      state.add_focal_targets(current[i], int((v.flat + i) % state.lanes), count[i], moment[i], v.bottom[i]);
  };
  for (int slot = 0; slot < SLOTS; slot++) {
    const FloatMask unlabelled = in_slot(words[0], slot), with_label = in_slot(words[1] | words[2], slot);
    FloatMask target = unlabelled ? pseudo_label[slot] : FloatMask{} - 1;
    if (any(with_label))
      for (int i = 0; i < L; i++)
        if (with_label[i]) target[i] = state.strip_labels[pixel[i] + slot];
    const FloatMask changed = (target != current) & (target >= 0);
    if (any(changed))
      for (int i = 0; i < L; i++) {
        if (!changed[i]) continue;
        store_target(i);
        count[i] = moment[i] = 0;
        current[i] = target[i];
        const int64_t row = int64_t(target[i]) * 2 * state.stride + v.offset + i;
        const float *top = state.top_table + row, *bottom = state.bottom_table + row;
        centre[i] = top[0] + v.bottom[i] * (bottom[0] - top[0]);
        slope[i] = top[state.stride] + v.bottom[i] * (bottom[state.stride] - top[state.stride]);
      }
    const FloatMask counts = target >= 0;
    const float distance = float(slot - RUN);
    const Float sum_all = larger(splat(SMALLEST_SUM), sum_old[slot] + sum_new[slot]);
    Float value, factor;
    focal_terms<float>(centre + distance * slope - log2<float>(sum_all), value, factor);
    factor = keep(counts, state.constants.focal * factor);
    state.lane_sums.add(SUM_FOCAL, keep(counts, value));
    weight_all[slot] += factor;
    count += factor;
    moment += distance * factor;
  }
  if (state.task.gradient.data)
    for (int i = 0; i < L; i++) store_target(i);
}

// The teacher's part of the gradient of old classes [first, last), sum_k p'_c(k) times the factors of the linear
// terms, and those terms' values. Replaces the starts of the teacher's sequences.
template <int RUN>
template <bool UNLABELLED_PIXELS, bool OTHER_PIXELS>
void GeometricLanes<RUN>::teacher_gradient(int64_t first, int64_t last, const TeacherWeights& w, float to_unlabelled,
                                           float to_rest, int sum_unlabelled, int sum_rest) {
  Float linear_unlabelled = splat(0.f), linear_rest = linear_unlabelled;
  for (int64_t c = first; c < last; c++) {
    const int64_t teacher = state.classes + c;
    Float centre, slope, plain = splat(0.f), moment = plain;
    state.interpolate(v, c, centre, slope);
    if (UNLABELLED_PIXELS) {
      Float p, m;
      weigh_sequence(teacher, w.unlabelled, p, m);
      linear_unlabelled += centre * p + slope * m;
      plain = to_unlabelled * p;
      moment = to_unlabelled * m;
    }
    if (OTHER_PIXELS) {
      Float p, m;
      weigh_sequence(teacher, w.rest, p, m);
      linear_rest += centre * p + slope * m;
      plain += to_rest * p;
      moment += to_rest * m;
    }
    starts[3 * teacher] = plain;
    starts[3 * teacher + 1] = moment;
  }
  state.lane_sums.add(sum_unlabelled, linear_unlabelled);
  state.lane_sums.add(sum_rest, linear_rest);
}

template <int RUN>
void GeometricLanes<RUN>::teacher_part(const TeacherWeights& w, bool unlabelled_pixels, bool other_pixels) {
  const Constants<float>& k = state.constants;
  const auto part = unlabelled_pixels && other_pixels ? &GeometricLanes::teacher_gradient<true, true>
                    : unlabelled_pixels               ? &GeometricLanes::teacher_gradient<true, false>
                                                      : &GeometricLanes::teacher_gradient<false, true>;
  (this->*part)(0, 1, w, k.linear_background[0], k.linear_background[2], SUM_LINEAR_BACKGROUND_UNLABELLED,
                SUM_LINEAR_BACKGROUND_REST);
  (this->*part)(1, state.task.old_classes, w, k.linear[0], k.linear[2], SUM_LINEAR_UNLABELLED, SUM_LINEAR_REST);
}

template <int RUN>
bool GeometricLanes<RUN>::run() {
  const Constants<float>& k = state.constants;
  const int64_t classes = state.classes, old_classes = state.task.old_classes;
  const Float zero = splat(0.f), smallest = splat(SMALLEST_SUM);
  const FloatMask words[REGION_COUNT] = {word(0), word(1), word(2), word(3)};
  const FloatMask pixels = words[0] | words[1] | words[2] | words[3];
  const int64_t first = k.ckd ? 1 : 0;  // CKD needs the background's exponentials alone

  start_sequences(0, classes + (k.teacher_terms ? old_classes : 0));
  if (any(unsafe & (pixels != 0))) return false;

  Float background[SLOTS], sum_old[SLOTS], sum_new[SLOTS], teacher_background[SLOTS], sum_teacher[SLOTS];
  for (int slot = 0; slot < SLOTS; slot++) sum_old[slot] = sum_new[slot] = sum_teacher[slot] = zero;
  if (k.ckd) {
    add_sequences(0, 1, sum_old);
    add_sequences(classes, classes + 1, sum_teacher);
    memcpy(background, sum_old, sizeof background);
    memcpy(teacher_background, sum_teacher, sizeof teacher_background);
  }
  add_sequences(first, old_classes, sum_old);
  add_sequences(old_classes, classes, sum_new);
  if (k.teacher_terms) add_sequences(classes + first, classes + old_classes, sum_teacher);

  FloatMask small{};
  for (int slot = 0; slot < SLOTS; slot++) {
    FloatMask low = sum_old[slot] + sum_new[slot] < smallest;
    if (k.log_old_used) low |= sum_old[slot] < smallest;
    if (k.teacher_terms) low |= sum_teacher[slot] < smallest;
    if (k.ckd) low |= sum_new[slot] + background[slot] < smallest;
    small |= low & in_slot(pixels, slot);
  }
  if (any(small)) return false;

  // Per pixel: logarithms, and the factors of the exponentials in the gradient.
  Float weight_new[SLOTS], weight_old[SLOTS], weight_background[SLOTS];
  TeacherWeights teacher_weights;
  for (int slot = 0; slot < SLOTS; slot++)
    weight_new[slot] = region_masks(words, slot).pick(k.log_all, k.has_old_labels);
  if (k.focal_used) {
    FloatMask pseudo_label[SLOTS] = {};
    if (k.teacher && any(words[0])) pseudo_labels(pseudo_label);
    focal_terms_of_targets(pseudo_label, sum_old, sum_new, words, weight_new);
  }
  LogProduct<float> ce = state.logs.ce, cce = state.logs.cce, cce_old = state.logs.cce_old, kd = state.logs.kd,
                    ali = state.logs.ali, ckd = state.logs.ckd;
  for (int slot = 0; slot < SLOTS; slot++) {
    const RegionMasks<float> region = region_masks(words, slot);
    // Slots without a pixel hold extrapolated values: keep them finite, their weights are 0.
    const Float all = larger(smallest, sum_old[slot] + sum_new[slot]);
    if (k.ce_value) ce.add(region.in(LABELLED), all);
    if (k.cce_value) cce.add(region.in(UNLABELLED | LABELLED), all);
    if (k.ali_value) ali.add(region.unlabelled, all);
    weight_new[slot] *= reciprocal(all);
    weight_old[slot] = weight_background[slot] = weight_new[slot];
    if (k.log_old_used) {
      const Float old = larger(smallest, sum_old[slot]);
      if (k.cce_value) cce_old.add(region.in(UNLABELLED | OLD), old);
      if (k.kd_value) kd.add(region.in(k.kd_region), old);
      weight_old[slot] += region.pick(k.log_old, k.has_old_labels) * reciprocal(old);
      weight_background[slot] = weight_old[slot];
    }
    if (!k.teacher_terms) continue;
    const Float inverse_teacher = reciprocal(larger(smallest, sum_teacher[slot]));
    const FloatMask present = in_slot(pixels, slot);
    teacher_weights.unlabelled[slot] = keep(region.unlabelled, inverse_teacher);
    teacher_weights.rest[slot] = keep(k.separate_regions ? present & ~region.unlabelled : present, inverse_teacher);
    if (k.ckd) {
      ckd.add(present, all);
      const Float p = keep(present, teacher_background[slot] * inverse_teacher);
      const Float both = larger(smallest, sum_new[slot] + background[slot]);
      state.lane_sums.add(SUM_LOG_CKD, -p * log2<float>(both));
      const Float pull = k.log_background_new * p * reciprocal(both);
      weight_new[slot] -= pull;
      weight_background[slot] -= pull;
    }
  }
  state.logs = {ce, cce, cce_old, kd, ali, ckd};
  state.logs.renormalise();

  // Back onto the lanes: the teacher's part, then the student's minus it.
  const bool unlabelled_pixels = k.separate_regions && k.linear_unlabelled && any(words[0]);
  const bool other_pixels = !k.separate_regions || (k.linear_rest && any(pixels & ~words[0]));
  const bool teacher_used = k.teacher_terms && (unlabelled_pixels || other_pixels);
  if (teacher_used) teacher_part(teacher_weights, unlabelled_pixels, other_pixels);
  if (!state.task.gradient.data) return true;
  for (int64_t c = 0; c < old_classes; c++) {
    Float plain, moment;
    weigh_sequence(c, c == 0 ? weight_background : weight_old, plain, moment);
    if (teacher_used) {
      plain -= starts[3 * (classes + c)];
      moment -= starts[3 * (classes + c) + 1];
    }
    state.accumulate(v, c, plain, moment);
  }
  for (int64_t c = old_classes; c < classes; c++) {
    Float plain, moment;
    weigh_sequence(c, weight_new, plain, moment);
    state.accumulate(v, c, plain, moment);
  }
  return true;
}

}  // namespace CISS_ISA
}  // namespace ciss
