// Sums of sigmoid and softplus over the pixels of a cell, for one plane per lane: csrc/core/sigmoid_sums.h with vectors.
#pragma once

#include "sigmoid_task.h"
#include "softplus.h"

namespace ciss {
namespace CISS_ISA {

template <class Real>
using Corners = CellCorners<VectorOf<Real>>;
template <class Real>
using Line = CellLine<VectorOf<Real>>;
template <class Real>
using Sums = CellSums<VectorOf<Real>>;

template <class Real>
struct VectorOperations {
  typedef VectorOf<Real> Number;

  CISS_INLINE void parts(Number z, Number& sigmoid, Number& softplus) { sigmoid_parts<Real>(z, sigmoid, softplus); }
};

// With what the geometric form needs.
struct GeometricOperations : VectorOperations<float> {
  CISS_INLINE Float exp2_of_negative(Float x) { return exp2<float>(x); }
  CISS_INLINE Float log2(Float x) { return CISS_ISA::log2<float>(x); }
  CISS_INLINE Float reciprocal(Float x) { return CISS_ISA::reciprocal(x); }
  CISS_INLINE Float magnitude(Float x) { return CISS_ISA::magnitude(x); }
  CISS_INLINE Float turned(Float x, FloatMask where) { return CISS_ISA::turned(x, sign_bit(where)); }
  CISS_INLINE Float kept(Float x, FloatMask where) { return keep(where, x); }
  CISS_INLINE void growths(Float x, Float& ratio, Float& inverse) {
    ratio = exp2_in_range<float>(x);
    inverse = CISS_ISA::reciprocal(ratio);
  }
};

template <class Real>
struct Nodes {
  const Real *position, *weight;
  int count;

  __attribute__((always_inline)) CellNode<Real> operator[](int i) const { return {position[i], weight[i]}; }
};

// One piece of an axis.
template <class Real>
struct Piece {
  int length;
  Real step;
  const NodeRange* nodes;  // [LEVELS]
  const Real *fraction, *weight;

  Piece(const PieceView<Real>& view, int64_t i)
      : length(view.length[i]), step(view.step[i]), nodes(view.nodes + i * LEVELS), fraction(view.fraction),
        weight(view.weight) {}

  __attribute__((always_inline)) Nodes<Real> nodes_at(int level) const {
    const NodeRange range = nodes[level];
    return {fraction + range.offset, weight + range.offset, range.count};
  }
};

// From the smallest to the largest logit.
template <class Real>
CISS_INLINE VectorOf<Real> span(const Corners<Real>& z) {
  return larger(larger(z.top_left, z.top_right), larger(z.bottom_left, z.bottom_right)) +
         larger(larger(-z.top_left, -z.top_right), larger(-z.bottom_left, -z.bottom_right));
}

// The level whose rule serves a change of a logit over the piece (log2 units).
template <class Real>
CISS_INLINE int level_of(Real change) {
  int level = 0;
  for (double limit : RULE_LIMIT) level += !(change <= Real(limit * 1.44269504088896340736));
  return level;
}

constexpr FormCosts FORM_COSTS = {32, 95, 10};  // vector operations

// Moments of the sigmoid; with SOFTPLUS also its sum, in log2 units.
template <bool SOFTPLUS>
CISS_INLINE Sums<float> sum_cell(const Corners<float>& z, const Piece<float>& x, const Piece<float>& y) {
  const float change_x = x.step * largest_lane(larger(magnitude(z.top_right - z.top_left),
                                                      magnitude(z.bottom_right - z.bottom_left)));
  const float change_y = y.step * largest_lane(larger(magnitude(z.bottom_left - z.top_left),
                                                      magnitude(z.bottom_right - z.top_right)));
  const Nodes<float> nodes_x = x.nodes_at(level_of(change_x * float(x.length)));
  const Nodes<float> nodes_y = y.nodes_at(level_of(change_y * float(y.length)));
  const auto at_middle = [](const Piece<float>& piece) { return piece.nodes_at(EVERY_PIXEL).position[piece.length / 2]; };
  const CellForm form =
      cheapest_form(FORM_COSTS, {x.length, nodes_x.count, change_x}, {y.length, nodes_y.count, change_y});
  if (form == CellForm::nodes) return sum_nodes<SOFTPLUS, VectorOperations<float>>(z, nodes_x, nodes_y);
  if (form == CellForm::along_rows)
    return sum_geometric<SOFTPLUS, GeometricOperations>(z, x.length, at_middle(x), x.step, nodes_y);
  return sum_geometric<SOFTPLUS, GeometricOperations>(z.transposed(), y.length, at_middle(y), y.step, nodes_x)
      .transposed();
}

template <bool SOFTPLUS>
CISS_INLINE Sums<double> sum_cell(const Corners<double>& z, const Piece<double>& x, const Piece<double>& y) {
  return sum_nodes<SOFTPLUS, VectorOperations<double>>(z, x.nodes_at(EVERY_PIXEL), y.nodes_at(EVERY_PIXEL));
}

}  // namespace CISS_ISA
}  // namespace ciss
