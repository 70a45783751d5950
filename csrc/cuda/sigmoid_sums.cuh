// Sums of sigmoid and softplus over the pixels of a cell, a channel a lane: the forms of csrc/cpu/sigmoid_cell.h, which
// ciss_fast/ops/sigmoid_loss/README.md derives. Logits are in log2 units.
#pragma once

#include "cells.cuh"

namespace ciss {
namespace cuda {

// log2(1 + e) / e for 0 <= e <= 1: minimax, relative error 2e-7.
CISS_DEVICE float log2_1p_quotient(float e) {
  float p = -1.23405756e-2f;
  p = p * e + 6.36885762e-2f;
  p = p * e - 1.55475363e-1f;
  p = p * e + 2.56106079e-1f;
  p = p * e - 3.53435159e-1f;
  p = p * e + 4.80072379e-1f;
  p = p * e - 7.21310914e-1f;
  return p * e + 1.44269478f;
}

// sigmoid = 1/(1 + 2^-z) and softplus = log2(1 + 2^z), both accurate relatively for z >= -120. Where z is not a number
// neither are they.
struct SigmoidParts {
  float sigmoid, softplus;

  CISS_DEVICE explicit SigmoidParts(float z) {
    const float e = fast_exp2(-fabsf(z));
    sigmoid = (z < 0 ? e : 1.f) * fast_reciprocal(e + 1);
    softplus = e * log2_1p_quotient(e) + (z > 0 ? z : 0.f);
  }
};

// x with its sign turned round, or as it is.
CISS_DEVICE float turned(float x, bool turn) { return turn ? -x : x; }

// The four logits of a cell.
struct Corners {
  float top_left, top_right, bottom_left, bottom_right;

  CISS_DEVICE Corners turned_if(bool turn) const {
    return {turned(top_left, turn), turned(top_right, turn), turned(bottom_left, turn), turned(bottom_right, turn)};
  }
  // From the smallest to the largest.
  CISS_DEVICE float span() const {
    return fmaxf(fmaxf(top_left, top_right), fmaxf(bottom_left, bottom_right)) -
           fminf(fminf(top_left, top_right), fminf(bottom_left, bottom_right));
  }
};

// The logits along a row of pixels, `s` being the weight of the bottom ones.
struct Line {
  float left, change;

  CISS_DEVICE Line(const Corners& z, float s)
      : left(z.top_left + s * (z.bottom_left - z.top_left)),
        change(z.top_right + s * (z.bottom_right - z.top_right) - left) {}
  CISS_DEVICE float at(float t) const { return left + t * change; }
};

// Sums over the pixels of f, t f, s f and s t f, with t and s the weights of the right and of the bottom logits; and of
// the loss.
struct CellSums {
  float plain = 0, right = 0, bottom = 0, both = 0, value = 0;

  CISS_DEVICE void add(float weight, float s, float f, float t_f, float loss) {
    const float weighted = weight * s;
    plain += weight * f;
    right += weight * t_f;
    bottom += weighted * f;
    both += weighted * t_f;
    value += weight * loss;
  }
  CISS_DEVICE void transpose() {
    const float swapped = right;
    right = bottom;
    bottom = swapped;
  }
  CISS_DEVICE void turn(bool turn) {
    plain = turned(plain, turn);
    right = turned(right, turn);
    bottom = turned(bottom, turn);
    both = turned(both, turn);
  }
  // Sum of z f, with z interpolated from the corners.
  CISS_DEVICE float times(const Corners& z) const {
    const float across = z.top_right - z.top_left;
    return z.top_left * plain + across * right + (z.bottom_left - z.top_left) * bottom +
           (z.bottom_right - z.bottom_left - across) * both;
  }
};

// One axis of a cell, and its nodes for the level in use: weight of the right logits and pixels a node stands for, in
// shared memory.
struct CellAxis {
  int length, count = 0;
  float start, centre, step;
  const NodeRange* ranges;  // [LEVELS]
  const RuleTable* rules;
  float2* staged;

  CISS_DEVICE CellAxis(const Piece& piece, const RuleTable& rules, float2* staged)
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
  CISS_DEVICE void stage(int level) {
    const NodeRange range = ranges[level];
    const float middle = start + 0.5f * float(length - 1) * step;
    count = range.count;
    __syncwarp();  // the last nodes may still be read
    for (int k = int(threadIdx.x) % WARP; k < count; k += WARP) {
      const RuleNode node = rules->nodes[range.offset + k];
      staged[k] = make_float2(middle + node.position * step, node.weight);
    }
    __syncwarp();
  }
};

template <bool SOFTPLUS>
CISS_DEVICE CellSums sum_nodes(const Corners& z, const CellAxis& x, const CellAxis& y) {
  CellSums sums;
  for (int j = 0; j < y.count; j++) {
    const float2 across = y.staged[j];
    const Line line(z, across.x);
    float plain = 0, moment = 0, value = 0;
    for (int i = 0; i < x.count; i++) {
      const float2 along = x.staged[i];
      const SigmoidParts parts(line.at(along.x));
      const float f = along.y * parts.sigmoid;
      plain += f;
      moment += along.x * f;
      if (SOFTPLUS) value += along.y * parts.softplus;
    }
    sums.add(across.y, across.x, plain, moment, value);
  }
  return sums;
}

// --- The geometric form: with the sign turned so that a line starts at z <= 0, e_k = E R^k from the middle pixel
// outwards, d_k = 1 + e_k, sigmoid = e_k / d_k; four reciprocals from that of a product of four, softplus from the
// logarithm of the product of all d_k, or where all e_k are small from the sums of sigmoid and its square.
constexpr float TAIL = -7.5f;
constexpr float TAIL_LINEAR = 0.99999874f, TAIL_SQUARE = 0.50183f;
constexpr float LARGEST_PRODUCT = 120;  // log2 of the largest product of the d_k of a line

struct GeometricLine {
  float plain = 0, moment = 0, squares = 0, product = 1;  // moment: of the pixel's number

  // Pixels first, first + direction, ...; `e` is that of the first one.
  template <bool SOFTPLUS>
  CISS_DEVICE void half(float e, float ratio, float first, float direction, int count) {
    const float square = ratio * ratio, fourth = square * square;
    float odd = e * ratio, sum = 0, steps = 0, number = 0;  // steps: moment of the distance from the first
    int k = 0;
    for (; k + 4 <= count; k += 4) {
      const float e2 = e * square, e3 = odd * square;
      const float d0 = 1 + e, d1 = 1 + odd, d2 = 1 + e2, d3 = 1 + e3;
      const float d01 = d0 * d1, d23 = d2 * d3, all = d01 * d23, inverse = fast_reciprocal(all);
      const float inverse01 = inverse * d23, inverse23 = inverse * d01;
      const float s0 = e * d1 * inverse01, s1 = odd * d0 * inverse01;
      const float s2 = e2 * d3 * inverse23, s3 = e3 * d2 * inverse23;
      const float s23 = s2 + s3, group = s0 + s1 + s23;
      sum += group;
      steps += number * group + (s1 + s3 + (s23 + s23));
      number += 4;
      if (SOFTPLUS) {
        product *= all;
        squares += s0 * s0 + s1 * s1 + s2 * s2 + s3 * s3;
      }
      e *= fourth;
      odd *= fourth;
    }
    for (; k < count; k++) {
      const float d = 1 + e, s = e * fast_reciprocal(d);
      sum += s;
      steps += number * s;
      number += 1;
      if (SOFTPLUS) {
        product *= d;
        squares += s * s;
      }
      e *= ratio;
    }
    plain += sum;
    moment += first * sum + direction * steps;
  }
};

// Largest change of a logit per pixel that the geometric form allows for pieces of this length.
CISS_DEVICE float geometric_limit(int length) {
  const int half = length / 2;
  return (LARGEST_PRODUCT - float(length)) / (0.5f * float(half * (half + 1)));
}

// Lines of `length` pixels along an axis whose middle pixel and step these are, at `nodes` of the other axis.
template <bool SOFTPLUS>
CISS_DEVICE CellSums sum_geometric(const Corners& z, int length, float at_middle, float step, const float2* nodes,
                                   int node_count) {
  CellSums sums;
  const int middle = length / 2, after = length - middle;  // the middle pixel is the first of `after`
  const float pixels = float(length), numbers = 0.5f * float(after * (after - 1) - middle * (middle + 1));
  for (int j = 0; j < node_count; j++) {
    const float2 across = nodes[j];
    const Line at(z, across.x);
    const float centre = at.at(at_middle), slope = step * at.change;
    const bool turn = centre > 0;
    const float exponent = -fabsf(centre), growth = turned(slope, turn);
    const float e = fast_exp2(exponent), ratio = fast_exp2(growth), inverse = fast_exp2(-growth);
    GeometricLine line;
    line.half<SOFTPLUS>(e, ratio, 0, 1, after);
    line.half<SOFTPLUS>(e * inverse, inverse, -1, -1, middle);
    const float plain = turn ? pixels - line.plain : line.plain;
    const float moment = turn ? numbers - line.moment : line.moment;
    float value = 0;
    if (SOFTPLUS) {
      const bool tail = exponent + float(after) * fabsf(growth) < TAIL;
      value = tail ? (TAIL_LINEAR * line.plain + TAIL_SQUARE * line.squares) * 1.44269504f : fast_log2(line.product);
      if (turn) value += pixels * centre + numbers * slope;
    }
    sums.add(across.y, across.x, plain, at_middle * plain + step * moment, value);
  }
  return sums;
}

// --- Which form where. The whole warp takes the same.

// Rough numbers of instructions.
constexpr int NODE_COST = 28, LINE_COST = 60, PIXEL_COST = 10, SHORTEST_GEOMETRIC = 5;

// Moments of the sigmoid; with SOFTPLUS also its sum.
template <bool SOFTPLUS>
CISS_DEVICE CellSums sum_cell(const Corners& z, CellAxis& x, CellAxis& y) {
  const float change_x =
      warp_max_of_magnitudes(x.step * fmaxf(fabsf(z.top_right - z.top_left), fabsf(z.bottom_right - z.bottom_left)));
  const float change_y =
      warp_max_of_magnitudes(y.step * fmaxf(fabsf(z.bottom_left - z.top_left), fabsf(z.bottom_right - z.top_right)));
  const int level_x = x.level_for(change_x), level_y = y.level_for(change_y);
  const int nodes_x = x.nodes_at(level_x), nodes_y = y.nodes_at(level_y);
  const int never = 1 << 30, cost = NODE_COST * nodes_x * nodes_y;
  const int cost_x = x.length >= SHORTEST_GEOMETRIC && change_x <= geometric_limit(x.length)
                         ? nodes_y * (LINE_COST + PIXEL_COST * x.length) : never;
  const int cost_y = y.length >= SHORTEST_GEOMETRIC && change_y <= geometric_limit(y.length)
                         ? nodes_x * (LINE_COST + PIXEL_COST * y.length) : never;
  if (cost <= cost_x && cost <= cost_y) {
    x.stage(level_x);
    y.stage(level_y);
    return sum_nodes<SOFTPLUS>(z, x, y);
  }
  const bool along_x = cost_x <= cost_y;
  if (along_x) y.stage(level_y);
  else x.stage(level_x);
  const Corners as_lines = {z.top_left, along_x ? z.top_right : z.bottom_left, along_x ? z.bottom_left : z.top_right,
                            z.bottom_right};
  CellSums sums = sum_geometric<SOFTPLUS>(as_lines, along_x ? x.length : y.length, along_x ? x.centre : y.centre,
                                          along_x ? x.step : y.step, along_x ? y.staged : x.staged,
                                          along_x ? y.count : x.count);
  if (!along_x) sums.transpose();
  return sums;
}

}  // namespace cuda
}  // namespace ciss
