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

#include "softmax_cell_gradient.cuh"

namespace ciss {
namespace cuda {

template <int RUN, Form FORM>
class SoftmaxCell : public SoftmaxCellGradient<RUN, FORM> {
  using Gradient = SoftmaxCellGradient<RUN, FORM>;

 public:
  using Gradient::SLOTS, Gradient::ROWS, Gradient::OWN;

  CISS_DEVICE SoftmaxCell(const SoftmaxCells& all, int64_t number, unsigned char* memory)
      : Gradient(all, number, memory) {}

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
  using Gradient::all, Gradient::number, Gradient::cell, Gradient::lane, Gradient::row, Gradient::staged,
      Gradient::gradient, Gradient::sums, Gradient::bottom, Gradient::region;
  using Gradient::W_BACKGROUND, Gradient::W_OLD, Gradient::W_NEW, Gradient::W_UNLABELLED, Gradient::W_REST,
      Gradient::W_BACKGROUND_UNLABELLED, Gradient::W_BACKGROUND_REST;

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

  CISS_DEVICE bool rows_from(int first) {
    const SoftmaxFlags& f = all.flags;
    const int y = first + row;
    bottom = y < cell.row.length ? cell.row.start + float(y) * cell.row.step : 0.f;
    this->read_labels(y);
    if (FORM == EXACT) this->find_maxima();
    for (int section = 0; section < SECTIONS; section++) this->add_section(section);
    __syncwarp();
    const bool good = this->finish_pixels();
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
      const float2 linear = this->weigh_old_classes(BACKGROUND, W_BACKGROUND, TEACHER_BACKGROUND, unlabelled, rest,
                                              {W_BACKGROUND_UNLABELLED, k.linear_background[0]},
                                              {W_BACKGROUND_REST, k.linear_background[2]});
      sums[SUM_LINEAR_BACKGROUND_UNLABELLED] += linear.x;
      sums[SUM_LINEAR_BACKGROUND_REST] += linear.y;
    }
    const float2 linear = this->weigh_old_classes(OLD_CLASSES, W_OLD, TEACHER_CLASSES, unlabelled, rest,
                                            {W_UNLABELLED, k.linear[0]}, {W_REST, k.linear[2]});
    sums[SUM_LINEAR_UNLABELLED] += linear.x;
    sums[SUM_LINEAR_REST] += linear.y;
    if (!all.partial) return true;
    this->template weigh_section<0>(NEW_CLASSES, W_NEW, TEACHER_CLASSES, {}, {});
    __syncwarp();
    this->subtract_targets();
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
