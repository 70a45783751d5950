// The main kernel of softmax_loss where logits are enlarged: a warp a cell.
//
// A lane has a row of the cell's pixels (ROWS of them at a time) and every GROUPS-th class; its pixels are unrolled.
// Along the row the logits of a class are linear, z(k) = centre + k slope with k = -RUN ... RUN, so 2^z is a geometric
// sequence: three exponentials instead of one a pixel (form GEOMETRIC), and Horner's rule makes the way back. Where
// that would lose accuracy the cell is marked, and done by a second launch of the form EXACT, with maxima and an
// exponential for every pixel and class.
//
//   sums over the lane's classes -> shared memory -> the lane that owns the pixel adds the groups, computes logarithms
//   and the weights of the exponentials in the gradient -> shared memory -> every lane weighs its classes -> sums over
//   the rows -> shared memory -> the cell's four corners in the table of partial gradients.
#pragma once

#include "softmax_task.cuh"

namespace ciss {
namespace cuda {

enum Form { GEOMETRIC, EXACT };

struct SoftmaxCells {
  SoftmaxTask task;
  SoftmaxFlags flags;
  SoftmaxLayout layout;
  Cells cells;
  const DeviceCoefficients* coefficients = nullptr;
  const float* table = nullptr;  // [nodes, positions]: logits in log2 units, less the largest of the node
  float* partial = nullptr;      // [cells, CORNERS, student_positions]; null where no gradient is wanted
  float* sums = nullptr;         // [SUM_POISON, cells]
  int32_t* exact = nullptr;      // [cells]: the cell is left to the exact form; null: all are
};

// A sum below this may lack terms that were flushed or dropped: 2^-60, so that a dropped term (below 2^-120) is at most
// 2^-60 of it. See csrc/cpu/softmax_geometric.h, which has the same guard for vectors of lanes.
constexpr float SMALLEST_SUM = 8.67361737988e-19f;
constexpr float LOWEST_CENTRE = -120.f, DROPPED_BELOW = -122.f, LARGEST_GROWTH = 60.f;

template <int RUN, Form FORM>
class SoftmaxCell {
 public:
  static constexpr int SLOTS = 2 * RUN + 1, ROWS = 8, GROUPS = WARP / ROWS, OWN = (SLOTS + GROUPS - 1) / GROUPS;
  static constexpr int BLOCK = SLOTS * ROWS;  // a number for every slot and row
  static_assert(SECTION_UNIT % (2 * GROUPS) == 0, "two classes a group at a time");

  // Factors of the exponentials, a BLOCK each.
  enum Weights { W_BACKGROUND, W_OLD, W_NEW, W_UNLABELLED, W_REST, W_BACKGROUND_UNLABELLED, W_BACKGROUND_REST, WEIGHTS };

  static size_t shared_bytes(const SoftmaxLayout& layout) {
    const size_t blocks = SECTIONS * GROUPS + WEIGHTS + (FORM == EXACT ? SECTIONS : 0);
    return size_t(layout.positions()) * sizeof(float4) + size_t(layout.student_positions()) * sizeof(float4) +
           blocks * BLOCK * sizeof(float);
  }

  CISS_DEVICE SoftmaxCell(const SoftmaxCells& all, int64_t number, unsigned char* memory)
      : all(all), number(number), cell(cell_of(all.cells, number)), lane(int(threadIdx.x)), row(lane % ROWS),
        group(lane / ROWS) {
    staged = reinterpret_cast<float4*>(memory);
    gradient = reinterpret_cast<float*>(staged + all.layout.positions());
    parts = gradient + 4 * all.layout.student_positions();
    weights = parts + SECTIONS * GROUPS * BLOCK;
    maxima = weights + WEIGHTS * BLOCK;
    CISS_UNROLL
    for (int i = 0; i < SUM_POISON; i++) sums[i] = 0;
  }

  CISS_DEVICE void run() {
    const bool safe = stage();
    if (FORM == GEOMETRIC) {
      const bool left_out = __any_sync(ALL_LANES, !safe);
      if (lane == 0) all.exact[number] = left_out;
      if (left_out) return;
    }
    for (int first = 0; first < cell.row.length; first += ROWS)
      if (!rows_from(first)) {
        if (lane == 0) all.exact[number] = 1;
        return;
      }
    write();
  }

 private:
  const SoftmaxCells& all;
  const int64_t number;
  const Cell cell;
  const int lane, row, group;
  float4* staged;   // [positions]: centre and slope at the top corners, and their changes towards the bottom ones
  float* gradient;  // [student_positions][4]: sum of the gradient and its moment along the row, for top and bottom
  float *parts, *weights, *maxima;
  float sums[SUM_POISON];
  float bottom = 0;  // weight of the bottom corners in the lane's row
  // Of the pixels the lane owns: slots group, group + GROUPS, ...
  int region[OWN], target[OWN];
  float target_weight[OWN];

  // False where the geometric form may lose accuracy.
  CISS_DEVICE bool stage() {
    bool safe = true;
    const int positions = all.layout.positions();
    const float *top_left = all.table + cell.corner[TOP_LEFT] * positions,
                *top_right = all.table + cell.corner[TOP_RIGHT] * positions,
                *bottom_left = all.table + cell.corner[BOTTOM_LEFT] * positions,
                *bottom_right = all.table + cell.corner[BOTTOM_RIGHT] * positions;
    const float centre = cell.column.centre, step = cell.column.step;
    for (int p = lane; p < positions; p += WARP) {
      const float top = top_left[p], top_change = top_right[p] - top;
      const float low = bottom_left[p], low_change = bottom_right[p] - low;
      const float4 t = make_float4(top + centre * top_change, step * top_change,
                                   low - top + centre * (low_change - top_change), step * (low_change - top_change));
      staged[p] = t;
      const float low_centre = t.x + t.z, growth = RUN * fmaxf(fabsf(t.y), fabsf(t.y + t.w));
      const bool tame = fminf(t.x, low_centre) > LOWEST_CENTRE || fmaxf(t.x, low_centre) + growth < DROPPED_BELOW;
      safe &= tame && growth <= LARGEST_GROWTH;
    }
    for (int p = lane; p < 4 * all.layout.student_positions(); p += WARP) gradient[p] = 0;
    __syncwarp();
    return safe;
  }

  // Centre and slope of a class in the lane's row.
  CISS_DEVICE float2 line(int position) const {
    const float4 t = staged[position];
    return make_float2(t.x + bottom * t.z, t.y + bottom * t.w);
  }
  CISS_DEVICE float logit(int position, int slot) const {
    const float2 z = line(position);
    return z.x + float(slot - RUN) * z.y;
  }
  CISS_DEVICE int class_count(int section) const { return all.layout.begin[section + 1] - all.layout.begin[section]; }

  // --- Forwards.

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

  CISS_DEVICE float part(int section, int of_group, int slot) const {
    return parts[((section * GROUPS + of_group) * SLOTS + slot) * ROWS + row];
  }

  // --- Pixels.

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

  // --- Backwards.

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

  CISS_DEVICE bool rows_from(int first) {
    const SoftmaxFlags& f = all.flags;
    const int y = first + row;
    bottom = y < cell.row.length ? cell.row.start + float(y) * cell.row.step : 0.f;
    read_labels(y);
    if (FORM == EXACT) find_maxima();
    for (int section = 0; section < SECTIONS; section++) add_section(section);
    __syncwarp();
    const bool good = finish_pixels();
    if (FORM == GEOMETRIC && __any_sync(ALL_LANES, !good)) return false;
    bool is_unlabelled = false, is_other = false;
    CISS_UNROLL
    for (int j = 0; j < OWN; j++) {
      is_unlabelled |= region[j] == 0;
      is_other |= region[j] > 0;
    }
    __syncwarp();
    const DeviceCoefficients& k = *all.coefficients;
    const bool some_unlabelled = __any_sync(ALL_LANES, is_unlabelled), some_other = __any_sync(ALL_LANES, is_other);
    const bool unlabelled = f.teacher_terms && f.separate_regions && f.linear_unlabelled && some_unlabelled;
    const bool rest = f.teacher_terms && (!f.separate_regions || (f.linear_rest && some_other));
    if (f.ckd) {
      const float2 linear = weigh_old_classes(BACKGROUND, W_BACKGROUND, TEACHER_BACKGROUND, unlabelled, rest,
                                              {W_BACKGROUND_UNLABELLED, k.linear_background[0]},
                                              {W_BACKGROUND_REST, k.linear_background[2]});
      sums[SUM_LINEAR_BACKGROUND_UNLABELLED] += linear.x;
      sums[SUM_LINEAR_BACKGROUND_REST] += linear.y;
    }
    const float2 linear = weigh_old_classes(OLD_CLASSES, W_OLD, TEACHER_CLASSES, unlabelled, rest,
                                            {W_UNLABELLED, k.linear[0]}, {W_REST, k.linear[2]});
    sums[SUM_LINEAR_UNLABELLED] += linear.x;
    sums[SUM_LINEAR_REST] += linear.y;
    if (!all.partial) return true;
    weigh_section<0>(NEW_CLASSES, W_NEW, TEACHER_CLASSES, {}, {});
    __syncwarp();
    subtract_targets();
    return true;
  }

  CISS_DEVICE void write() {
    __syncwarp();
    const int positions = all.layout.student_positions();
    if (all.partial) {
      float* const out = all.partial + number * CORNERS * positions;
      for (int p = lane; p < positions; p += WARP) {
        const float* const g = gradient + 4 * p;
        const float top = cell.column.centre * g[0] + cell.column.step * g[1];
        const float low = cell.column.centre * g[2] + cell.column.step * g[3];
        out[TOP_LEFT * positions + p] = g[0] - top;
        out[TOP_RIGHT * positions + p] = top;
        out[BOTTOM_LEFT * positions + p] = g[2] - low;
        out[BOTTOM_RIGHT * positions + p] = low;
      }
    }
    const int64_t cells = all.cells.count();
    CISS_UNROLL
    for (int i = 0; i < SUM_POISON; i++) {
      const float sum = warp_sum(sums[i]);
      if (lane == 0) all.sums[i * cells + number] = sum;
    }
  }
};

template <int RUN, Form FORM>
CISS_KERNEL __launch_bounds__(WARP) softmax_cells_kernel(CISS_CONSTANT SoftmaxCells all) {
  CISS_SHARED_MEMORY(memory);
  const int64_t number = blockIdx.x;
  if (FORM == EXACT && all.exact && !all.exact[number]) return;
  SoftmaxCell<RUN, FORM>(all, number, memory).run();
}

}  // namespace cuda
}  // namespace ciss
