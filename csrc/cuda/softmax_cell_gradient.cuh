// The way back in a cell: every class weighs the exponentials of its pixels; sums and moments along the rows become the
// gradient on the top and the bottom corners.
#pragma once

#include "softmax_cell_sums.cuh"

namespace ciss {
namespace cuda {

template <int RUN, Form FORM>
class SoftmaxCellGradient : public SoftmaxCellSums<RUN, FORM> {
  using Sums = SoftmaxCellSums<RUN, FORM>;

 public:
  using Sums::SLOTS, Sums::ROWS, Sums::GROUPS, Sums::OWN;

 protected:
  using Sums::all, Sums::lane, Sums::row, Sums::group, Sums::gradient, Sums::weights, Sums::maxima, Sums::bottom,
      Sums::target, Sums::target_weight, Sums::line;
  using Sums::SoftmaxCellSums;

  struct Weighed {
    float plain, moment;
  };

  // sum_k w_k 2^z(k) and sum_k k w_k 2^z(k).
  CISS_DEVICE Weighed weigh(float2 z, const float w[SLOTS], const float max[SLOTS]) const {
    if (FORM == EXACT) {
      Weighed sum = {0, 0};
      CISS_UNROLL
      for (int k = 0; k < SLOTS; k++) {
        const float weighted = w[k] * fast_exp2(z.x + float(k - RUN) * z.y - max[k]);
        sum.plain += weighted;
        sum.moment += float(k - RUN) * weighted;
      }
      return sum;
    }
    const float start = fast_exp2(z.x), ratio = fast_exp2(z.y), inverse = fast_exp2(-z.y);
    float ahead = w[2 * RUN], ahead_moment = ahead, behind = w[0], behind_moment = behind;
    CISS_UNROLL
    for (int k = RUN - 1; k >= 1; k--) {
      ahead = ahead * ratio + w[RUN + k];
      ahead_moment = ahead_moment * ratio + ahead;
      behind = behind * inverse + w[RUN - k];
      behind_moment = behind_moment * inverse + behind;
    }
    // Now ahead = sum_{k>=1} w_k R^(k-1) and ahead_moment = sum_{k>=1} k w_k R^(k-1); likewise behind.
    return {start * (w[RUN] + ahead * ratio + behind * inverse), start * (ahead_moment * ratio - behind_moment * inverse)};
  }

  CISS_DEVICE void load_weights(int set, int section, float w[SLOTS], float max[SLOTS]) const {
    CISS_UNROLL
    for (int k = 0; k < SLOTS; k++) {
      w[k] = weights[(set * SLOTS + k) * ROWS + row];
      max[k] = FORM == EXACT ? maxima[(section * SLOTS + k) * ROWS + row] : 0.f;
    }
  }

  // The sum of v[row] over the lanes of a group: every lane gets that of its own row's number.
  CISS_DEVICE float add_rows(const float v[ROWS]) const {
    float four[4], two[2];
    CISS_UNROLL
    for (int i = 0; i < 4; i++) {
      const float kept = row & 4 ? v[i + 4] : v[i], sent = row & 4 ? v[i] : v[i + 4];
      four[i] = kept + __shfl_xor_sync(ALL_LANES, sent, 4);
    }
    CISS_UNROLL
    for (int i = 0; i < 2; i++) {
      const float kept = row & 2 ? four[i + 2] : four[i], sent = row & 2 ? four[i] : four[i + 2];
      two[i] = kept + __shfl_xor_sync(ALL_LANES, sent, 2);
    }
    const float kept = row & 1 ? two[1] : two[0], sent = row & 1 ? two[0] : two[1];
    return kept + __shfl_xor_sync(ALL_LANES, sent, 1);
  }

  // One set of the teacher's weights and its factor in the gradient.
  struct TeacherPart {
    int set;
    float factor;
  };

  // A section of the student's classes, with TEACHERS parts of the same classes' teacher. Returns the sums over the
  // lane's pixels and classes of the student's logits times the teacher's weighed exponentials, for each part.
  template <int TEACHERS>
  CISS_DEVICE float2 weigh_section(int section, int set, int teacher_section, TeacherPart first, TeacherPart second) {
    float w[SLOTS], max[SLOTS], w1[SLOTS], w2[SLOTS], teacher_max[SLOTS];
    load_weights(set, section, w, max);
    if (TEACHERS > 0) load_weights(first.set, teacher_section, w1, teacher_max);
    if (TEACHERS > 1) load_weights(second.set, teacher_section, w2, teacher_max);
    const int to_teacher = TEACHERS > 0 ? all.layout.begin[teacher_section] - all.layout.begin[section] : 0;
    float linear1 = 0, linear2 = 0;
    for (int p = all.layout.begin[section] + group; p < all.layout.begin[section + 1]; p += 2 * GROUPS) {
      float v[ROWS];
      CISS_UNROLL
      for (int i = 0; i < 2; i++) {
        const float2 z = line(p + i * GROUPS);
        Weighed g = weigh(z, w, max);
        if (TEACHERS > 0) {
          const float2 teacher_z = line(p + i * GROUPS + to_teacher);
          const Weighed t = weigh(teacher_z, w1, teacher_max);
          linear1 += z.x * t.plain + z.y * t.moment;
          g.plain -= first.factor * t.plain;
          g.moment -= first.factor * t.moment;
          if (TEACHERS > 1) {
            const Weighed u = weigh(teacher_z, w2, teacher_max);
            linear2 += z.x * u.plain + z.y * u.moment;
            g.plain -= second.factor * u.plain;
            g.moment -= second.factor * u.moment;
          }
        }
        v[4 * i + 2] = bottom * g.plain;
        v[4 * i + 3] = bottom * g.moment;
        v[4 * i] = g.plain - v[4 * i + 2];
        v[4 * i + 1] = g.moment - v[4 * i + 3];
      }
      if (all.partial) gradient[(p + (row / 4) * GROUPS) * 4 + row % 4] += add_rows(v);
    }
    return make_float2(linear1, linear2);
  }

  CISS_DEVICE float2 weigh_old_classes(int section, int set, int teacher_section, bool unlabelled, bool rest,
                                       TeacherPart of_unlabelled, TeacherPart of_rest) {
    if (unlabelled && rest) return weigh_section<2>(section, set, teacher_section, of_unlabelled, of_rest);
    if (unlabelled || rest) {
      const TeacherPart one = unlabelled ? of_unlabelled : of_rest;
      const float linear = weigh_section<1>(section, set, teacher_section, one, one).x;
      return make_float2(unlabelled ? linear : 0.f, unlabelled ? 0.f : linear);
    }
    if (all.partial) weigh_section<0>(section, set, teacher_section, of_rest, of_rest);
    return make_float2(0, 0);
  }

  // The targets' own part of the gradient, minus their weight: linear, so that the sums over the pixels of a class and
  // their moments suffice. One class after the other; a cell shows few.
  CISS_DEVICE void subtract_targets() {
    unsigned open = 0;
    CISS_UNROLL
    for (int j = 0; j < OWN; j++) open |= unsigned(target[j] >= 0) << j;
    for (;;) {
      const unsigned lanes = __ballot_sync(ALL_LANES, open != 0);
      if (!lanes) break;
      int mine = 0;
      CISS_UNROLL
      for (int j = 0; j < OWN; j++)
        if (open >> j & 1) mine = target[j];
      const int position = __shfl_sync(ALL_LANES, mine, __ffs(lanes) - 1);
      float plain = 0, moment = 0;
      CISS_UNROLL
      for (int j = 0; j < OWN; j++) {
        if (!(open >> j & 1) || target[j] != position) continue;
        plain += target_weight[j];
        moment += target_weight[j] * float(group + j * GROUPS - RUN);
        open &= ~(1u << j);
      }
      const float top = warp_sum(plain - bottom * plain), top_moment = warp_sum(moment - bottom * moment);
      const float low = warp_sum(bottom * plain), low_moment = warp_sum(bottom * moment);
      if (lane < 4)
        gradient[4 * position + lane] -= lane == 0 ? top : lane == 1 ? top_moment : lane == 2 ? low : low_moment;
      __syncwarp();
    }
  }
};

}  // namespace cuda
}  // namespace ciss
