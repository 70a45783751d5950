// The way forwards in a cell: sums over the classes, then the lanes that own the pixels turn them into logarithms and into
// the weights of the exponentials in the gradient.
#pragma once

#include "softmax_cell_state.cuh"

namespace ciss {
namespace cuda {

template <int RUN, Form FORM>
class SoftmaxCellSums : public SoftmaxCellState<RUN, FORM> {
  using State = SoftmaxCellState<RUN, FORM>;

 public:
  using State::SLOTS, State::ROWS, State::GROUPS, State::OWN, State::W_BACKGROUND, State::W_OLD, State::W_NEW,
      State::W_UNLABELLED, State::W_REST, State::W_BACKGROUND_UNLABELLED, State::W_BACKGROUND_REST;

 protected:
  using State::all, State::cell, State::row, State::group, State::parts, State::weights, State::maxima, State::sums,
      State::region, State::target, State::target_weight, State::line, State::logit, State::part;
  using State::SoftmaxCellState;

  CISS_DEVICE void add_section(int section) {
    float sum[SLOTS], max[SLOTS];
    CISS_UNROLL
    for (int k = 0; k < SLOTS; k++) {
      sum[k] = 0;
      max[k] = FORM == EXACT ? maxima[(section * SLOTS + k) * ROWS + row] : 0.f;
    }
    for (int p = all.layout.begin[section] + group; p < all.layout.begin[section + 1]; p += GROUPS) {
      const float2 z = line(p);
      if (FORM == EXACT) {
        CISS_UNROLL
        for (int k = 0; k < SLOTS; k++) sum[k] += fast_exp2(z.x + float(k - RUN) * z.y - max[k]);
      } else {
        float ahead = fast_exp2(z.x), behind = ahead;
        const float ratio = fast_exp2(z.y), inverse = fast_exp2(-z.y);
        sum[RUN] += ahead;
        CISS_UNROLL
        for (int k = 1; k <= RUN; k++) {
          ahead *= ratio;
          sum[RUN + k] += ahead;
          behind *= inverse;
          sum[RUN - k] += behind;
        }
      }
    }
    CISS_UNROLL
    for (int k = 0; k < SLOTS; k++) parts[((section * GROUPS + group) * SLOTS + k) * ROWS + row] = sum[k];
  }

  CISS_DEVICE void find_maxima() {
    for (int section = 0; section < SECTIONS; section++) {
      float max[SLOTS];
      CISS_UNROLL
      for (int k = 0; k < SLOTS; k++) max[k] = 0.1f * PADDING;  // above the padding: that must not become 2^0
      for (int p = all.layout.begin[section] + group; p < all.layout.begin[section + 1]; p += GROUPS) {
        const float2 z = line(p);
        CISS_UNROLL
        for (int k = 0; k < SLOTS; k++) max[k] = fmaxf(max[k], z.x + float(k - RUN) * z.y);
      }
      CISS_UNROLL
      for (int k = 0; k < SLOTS; k++) parts[((section * GROUPS + group) * SLOTS + k) * ROWS + row] = max[k];
    }
    __syncwarp();
    for (int section = 0; section < SECTIONS; section++)
      for (int k = group; k < SLOTS; k += GROUPS) {
        float max = part(section, 0, k);
        CISS_UNROLL
        for (int g = 1; g < GROUPS; g++) max = fmaxf(max, part(section, g, k));
        maxima[(section * SLOTS + k) * ROWS + row] = max;
      }
    __syncwarp();
  }

  CISS_DEVICE void read_labels(int y) {
    const SoftmaxTask& task = all.task;
    const DeviceCoefficients& k = *all.coefficients;
    const int first_slot = RUN - cell.column.length / 2;
    CISS_UNROLL
    for (int j = 0; j < OWN; j++) {
      const int x = group + j * GROUPS - first_slot;
      region[j] = target[j] = -1;
      target_weight[j] = 0;
      if (y >= cell.row.length || x < 0 || x >= cell.column.length) continue;
      const int32_t label = read_label(task.label, cell.image, cell.row.first + y, cell.column.first + x);
      region[j] = region_of(task, label);
      if (!is_in(region[j], LABELLED)) continue;
      target[j] = all.layout.position(label);
      target_weight[j] = is_in(region[j], OLD) ? k.label_old : k.label_new;
      const float z = logit(target[j], group + j * GROUPS);
      if (is_in(region[j], OLD)) sums[SUM_LABEL_OLD] += z;
      else sums[SUM_LABEL_NEW] += z;
    }
  }

  // The position of the student's class that the teacher's logits name at a slot.
  CISS_DEVICE int pseudo_label(int slot) const {
    float highest = 10 * PADDING;
    int best = 0;
    for (int c = 0; c < all.layout.old_classes; c++) {
      const float z = logit(all.layout.teacher_position(c), slot);
      if (z > highest) {
        highest = z;
        best = c;
      }
    }
    return all.layout.position(best);
  }

  // The pixels the lane owns: from the sums to the weights. False where a sum is too small for the geometric form.
  CISS_DEVICE bool finish_pixels() {
    bool good = true;
    CISS_UNROLL
    for (int j = 0; j < OWN; j++) {
      const int slot = group + j * GROUPS;
      if (slot >= SLOTS) break;
      PixelWeights w;
      if (region[j] >= 0) {
        LogSum of[SECTIONS];
        CISS_UNROLL
        for (int section = 0; section < SECTIONS; section++) {
          CISS_UNROLL
          for (int g = 0; g < GROUPS; g++) of[section].sum += part(section, g, slot);
          if (FORM == EXACT) of[section].max = maxima[(section * SLOTS + slot) * ROWS + row];
        }
        if (FORM == GEOMETRIC) good &= large_enough(of);
        bool has_target = false;
        if (all.flags.focal) {
          if (is_in(region[j], UNLABELLED)) target[j] = all.flags.teacher ? pseudo_label(slot) : 0;
          has_target = target[j] >= 0;
        }
        float factor = 0;
        w = pixel_terms<FORM == EXACT>(all.flags, *all.coefficients, region[j], of, has_target,
                                       has_target ? logit(target[j], slot) : 0.f, sums, factor);
        target_weight[j] += factor;
      }
      const bool unlabelled = all.flags.separate_regions && region[j] == 0;
      set_weight(W_BACKGROUND, slot, w.background);
      set_weight(W_OLD, slot, w.old);
      set_weight(W_NEW, slot, w.fresh);
      set_weight(W_UNLABELLED, slot, unlabelled ? w.teacher : 0.f);
      set_weight(W_REST, slot, unlabelled ? 0.f : w.teacher);
      set_weight(W_BACKGROUND_UNLABELLED, slot, unlabelled ? w.teacher_background : 0.f);
      set_weight(W_BACKGROUND_REST, slot, unlabelled ? 0.f : w.teacher_background);
    }
    return good;
  }

  CISS_DEVICE bool large_enough(const LogSum of[SECTIONS]) const {
    const SoftmaxFlags& f = all.flags;
    const float old = of[OLD_CLASSES].sum + of[BACKGROUND].sum;
    bool small = old + of[NEW_CLASSES].sum < SMALLEST_SUM;
    small |= f.log_old && old < SMALLEST_SUM;
    small |= f.teacher_terms && of[TEACHER_CLASSES].sum + of[TEACHER_BACKGROUND].sum < SMALLEST_SUM;
    small |= f.ckd && of[NEW_CLASSES].sum + of[BACKGROUND].sum < SMALLEST_SUM;
    return !small;
  }
  CISS_DEVICE void set_weight(int set, int slot, float w) { weights[(set * SLOTS + slot) * ROWS + row] = w; }
};

}  // namespace cuda
}  // namespace ciss
