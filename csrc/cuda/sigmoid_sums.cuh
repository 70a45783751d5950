// Sums of sigmoid and softplus over the pixels of a cell, a channel a lane: csrc/core/sigmoid_sums.h with single numbers.
#pragma once

#include "cells.cuh"
#include "core/sigmoid_sums.h"

namespace ciss {
namespace cuda {

using Corners = CellCorners<float>;
using Line = CellLine<float>;
using Sums = CellSums<float>;

// x with its sign turned round, or as it is.
CISS_DEVICE float turned(float x, bool turn) { return turn ? -x : x; }

// sigmoid = 1/(1 + 2^-z) and softplus = log2(1 + 2^z), both accurate relatively for z >= -120. Where z is not a number
// neither are they.
struct SigmoidParts {
  float sigmoid, softplus;

  CISS_DEVICE explicit SigmoidParts(float z) {
    const float e = fast_exp2(-fabsf(z));
    sigmoid = (z < 0 ? e : 1.f) * fast_reciprocal(e + 1);
    softplus = e * log2_1p_quotient_of(e) + (z > 0 ? z : 0.f);
  }
};

struct NumberOperations {
  typedef float Number;

  CISS_DEVICE static void parts(float z, float& sigmoid, float& softplus) {
    const SigmoidParts both(z);
    sigmoid = both.sigmoid;
    softplus = both.softplus;
  }
  CISS_DEVICE static float exp2_of_negative(float x) { return fast_exp2(x); }
  CISS_DEVICE static float log2(float x) { return fast_log2(x); }
  CISS_DEVICE static float reciprocal(float x) { return fast_reciprocal(x); }
  CISS_DEVICE static float magnitude(float x) { return fabsf(x); }
  CISS_DEVICE static float turned(float x, bool where) { return cuda::turned(x, where); }
  CISS_DEVICE static float kept(float x, bool where) { return where ? x : 0.f; }
  CISS_DEVICE static void growths(float x, float& ratio, float& inverse) {
    ratio = fast_exp2(x);
    inverse = fast_exp2(-x);
  }
};

// From the smallest to the largest logit.
CISS_DEVICE float span(const Corners& z) {
  return fmaxf(fmaxf(z.top_left, z.top_right), fmaxf(z.bottom_left, z.bottom_right)) -
         fminf(fminf(z.top_left, z.top_right), fminf(z.bottom_left, z.bottom_right));
}

// In shared memory.
struct Nodes {
  const CellNode<float>* node;
  int count;

  CISS_DEVICE CellNode<float> operator[](int i) const { return node[i]; }
};

// One axis of a cell, and room for the nodes of a level.
struct CellAxis {
  int length;
  float start, centre, step;
  const NodeRange* ranges;  // [LEVELS]
  const RuleTable* rules;
  CellNode<float>* staged;

  CISS_DEVICE CellAxis(const Piece& piece, const RuleTable& rules, CellNode<float>* staged)
      : length(piece.length), start(piece.start), centre(piece.centre), step(piece.step),
        ranges(rules.ranges + piece.rules * LEVELS), rules(&rules), staged(staged) {}

  // The level whose rule serves a change of a logit by so much from pixel to pixel.
  CISS_DEVICE int level_for(float change) const {
    int level = 0;
    CISS_UNROLL
    for (int i = 0; i < RULES; i++) level += !(change * float(length) <= rules->limits[i]);
    return level;
  }

  CISS_DEVICE int nodes_at(int level) const { return ranges[level].count; }
  // The whole warp: nodes of a level into shared memory.
  CISS_DEVICE Nodes stage(int level) const {
    const NodeRange range = ranges[level];
    const float middle = start + 0.5f * float(length - 1) * step;
    __syncwarp();  // the last nodes may still be read
    for (int k = int(threadIdx.x) % WARP; k < range.count; k += WARP) {
      const RuleNode node = rules->nodes[range.offset + k];
      staged[k] = {middle + node.position * step, node.weight};
    }
    __syncwarp();
    return {staged, range.count};
  }
};

// Moments of the sigmoid; with SOFTPLUS also its sum. The whole warp takes the same form.
template <bool SOFTPLUS>
CISS_DEVICE Sums sum_cell(const Corners& z, const CellAxis& x, const CellAxis& y) {
  const float change_x =
      warp_max_of_magnitudes(x.step * fmaxf(fabsf(z.top_right - z.top_left), fabsf(z.bottom_right - z.bottom_left)));
  const float change_y =
      warp_max_of_magnitudes(y.step * fmaxf(fabsf(z.bottom_left - z.top_left), fabsf(z.bottom_right - z.top_right)));
  const int level_x = x.level_for(change_x), level_y = y.level_for(change_y);
  const FormCosts costs = {28, 60, 10};  // instructions
  const CellForm form = cheapest_form(costs, {x.length, x.nodes_at(level_x), change_x},
                                      {y.length, y.nodes_at(level_y), change_y});
  if (form == CellForm::nodes) {
    const Nodes along = x.stage(level_x), across = y.stage(level_y);
    return sum_nodes<SOFTPLUS, NumberOperations>(z, along, across);
  }
  const bool along_rows = form == CellForm::along_rows;
  const Nodes across = along_rows ? y.stage(level_y) : x.stage(level_x);
  const Corners lines = {z.top_left, along_rows ? z.top_right : z.bottom_left,
                         along_rows ? z.bottom_left : z.top_right, z.bottom_right};
  const Sums sums = sum_geometric<SOFTPLUS, NumberOperations>(
      lines, along_rows ? x.length : y.length, along_rows ? x.centre : y.centre, along_rows ? x.step : y.step, across);
  return {sums.plain, along_rows ? sums.right : sums.bottom, along_rows ? sums.bottom : sums.right, sums.both, sums.value};
}

}  // namespace cuda
}  // namespace ciss
