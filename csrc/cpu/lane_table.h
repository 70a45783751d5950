// The horizontal half of the enlargement, for all label rows at once.
//
// For every class and lane (see Lanes) of a source row: the logit at the lane's centre and its slope per pixel. Label
// rows between two source rows mix the two tables with the row's weight. A gradient goes the same way back: per lane
// the sum of the pixels' gradients and the sum weighted by the distance from the centre; folding these onto the source
// columns is the adjoint of the table.
//
// The lanes of all label rows of a strip are numbered consecutively and processed a vector at a time, whatever the
// number of lanes in a row. Tables and accumulators are therefore periodic: `stride` holds one row's lanes and then
// the first lanes again, so that a vector starting anywhere in the row can be read and written in one piece.
#pragma once

#include "conversion.h"
#include "lane_arrays.h"
#include "scratch.h"

namespace ciss {
namespace CISS_ISA {

// Most lanes lie between the columns next to those of the lane before (not where lanes are cut or the map shrinks):
// these `regular` ones are read and written without looking up their columns.
template <class Real>
struct LaneTable {
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes;

  // A vector of lanes of a strip.
  struct LaneVector {
    int64_t flat;  // number of its first lane within the strip
    int offset;    // the same within the row
    V bottom;      // weight of the bottom source row
  };

  const LaneArrays& arrays;
  const int lanes, stride, run;
  Real *centre_weight, *step;  // [lanes]
  Real *to_left, *to_right;    // [lanes], scratch of `fold`

  LaneTable(const LaneArrays& a, Scratch& scratch)
      : arrays(a), lanes(a.count), stride((a.count + 2 * L - 1) / L * L), run(a.run) {
    centre_weight = scratch.take<Real>(lanes);
    step = scratch.take<Real>(lanes);
    to_left = scratch.take<Real>(lanes);
    to_right = scratch.take<Real>(lanes);
    if (!scratch.base) return;
    for (int j = 0; j < lanes; j++) {
      centre_weight[j] = Real(arrays.centre[j]);
      step[j] = Real(arrays.step[j]);
    }
  }

  int slots() const { return 2 * run + 1; }

  // node: [width] logits of one class; table: [2][stride], centres and slopes.
  __attribute__((always_inline)) void expand(const Real* node, Real* table) const {
    Real *const __restrict centre = table, *const __restrict slope = table + stride;
    const auto set = [&](int j, Real left, Real right) __attribute__((always_inline)) {
      const Real difference = right - left;
      centre[j] = left + centre_weight[j] * difference;
      slope[j] = step[j] * difference;
    };
    const int begin = arrays.regular_begin, end = arrays.regular_end;
    const Real* const regular = node + arrays.left[begin < end ? begin : 0] - begin;
    for (int j = 0; j < begin; j++) set(j, node[arrays.left[j]], node[arrays.right[j]]);
    for (int j = begin; j < end; j++) set(j, regular[j], regular[j + 1]);
    for (int j = end; j < lanes; j++) set(j, node[arrays.left[j]], node[arrays.right[j]]);
    for (int j = lanes; j < stride; j++) {
      centre[j] = centre[j - lanes];
      slope[j] = slope[j - lanes];
    }
  }

  // The adjoint: adds the lanes' sums ([2][stride], plain and times the distance) to node [width].
  __attribute__((always_inline)) void fold(Real* sums, Real* node) const {
    const int begin = arrays.regular_begin, end = arrays.regular_end;
    Real *const __restrict plain = sums, *const __restrict moment = sums + stride;
    for (int j = lanes, k = 0; j < stride; j++, k = k + 1 < lanes ? k + 1 : 0) {
      plain[k] += plain[j];
      moment[k] += moment[j];
    }
    for (int j = 0; j < lanes; j++) {
      to_right[j] = centre_weight[j] * plain[j] + step[j] * moment[j];
      to_left[j] = plain[j] - to_right[j];
    }
    const auto add = [&](int j) __attribute__((always_inline)) {
      node[arrays.left[j]] += to_left[j];
      node[arrays.right[j]] += to_right[j];
    };
    Real* const regular = node + arrays.left[begin < end ? begin : 0] - begin;
    for (int j = 0; j < begin; j++) add(j);
    for (int j = begin; j < end; j++) regular[j] += to_left[j];
    for (int j = begin; j < end; j++) regular[j + 1] += to_right[j];
    for (int j = end; j < lanes; j++) add(j);
  }

  // Centre and slope of a vector of lanes, from the tables of the source rows above and below.
  __attribute__((always_inline)) void interpolate(const LaneVector& v, const Real* top_table, const Real* bottom_table,
                                                  V& centre, V& slope) const {
    const Real *top = top_table + v.offset, *bottom = bottom_table + v.offset;
    const V upper = load(top), upper_slope = load(top + stride);
    centre = upper + v.bottom * (load(bottom) - upper);
    slope = upper_slope + v.bottom * (load(bottom + stride) - upper_slope);
  }

  // Pixel behind a lane and slot, counted along the strip's label rows.
  int64_t pixel_of(const LaneVector& v, int i, int slot, int64_t label_width) const {
    const int64_t r = (v.flat + i) / lanes;
    const int lane = int((v.flat + i) % lanes);
    return r * label_width + arrays.first_pixel[lane] + slot - arrays.first_slot[lane];
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
