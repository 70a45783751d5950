// Sums of sigmoid and softplus over the pixels of a cell, for one plane per lane.
//
// Inside a cell the logits are bilinear. Where they change little, a Gauss rule takes a few nodes instead of all pixels.
// Where they change much in one direction, the pixels of that direction are taken one by one, but as a geometric
// sequence: e^z along a line is E R^k. Logits are in log2 units.
#pragma once

#include "sigmoid_task.h"
#include "softplus.h"

namespace ciss {
namespace CISS_ISA {

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
};

// The four logits of a cell.
template <class Real>
struct Corners {
  VectorOf<Real> top_left, top_right, bottom_left, bottom_right;

  __attribute__((always_inline)) Corners transposed() const { return {top_left, bottom_left, top_right, bottom_right}; }
  // With the signs that are set in `sign` turned round.
  __attribute__((always_inline)) Corners turned(MaskOf<Real> sign) const {
    const auto turn = [&](VectorOf<Real> x) { return (VectorOf<Real>)((MaskOf<Real>)x ^ sign); };
    return {turn(top_left), turn(top_right), turn(bottom_left), turn(bottom_right)};
  }
  // From the smallest to the largest.
  __attribute__((always_inline)) VectorOf<Real> span() const {
    return larger(larger(top_left, top_right), larger(bottom_left, bottom_right)) +
           larger(larger(-top_left, -top_right), larger(-bottom_left, -bottom_right));
  }
};

// The logits along a row of pixels, `s` being the weight of the bottom ones.
template <class Real>
struct Line {
  VectorOf<Real> left, change;

  __attribute__((always_inline)) Line(const Corners<Real>& z, Real s)
      : left(z.top_left + s * (z.bottom_left - z.top_left)),
        change(z.top_right + s * (z.bottom_right - z.top_right) - left) {}
  __attribute__((always_inline)) VectorOf<Real> at(Real t) const { return left + t * change; }
};

// Sums over the pixels of f, t f, s f and s t f, with t and s the weights of the right and of the bottom logits.
template <class Real>
struct Moments {
  VectorOf<Real> plain, right, bottom, both;

  __attribute__((always_inline)) void turn(MaskOf<Real> sign) {
    const auto turn_one = [&](VectorOf<Real>& x) { x = (VectorOf<Real>)((MaskOf<Real>)x ^ sign); };
    turn_one(plain), turn_one(right), turn_one(bottom), turn_one(both);
  }
  __attribute__((always_inline)) void scale(VectorOf<Real> factor) {
    plain *= factor;
    right *= factor;
    bottom *= factor;
    both *= factor;
  }
  __attribute__((always_inline)) void subtract(const Moments& other) {
    plain -= other.plain;
    right -= other.right;
    bottom -= other.bottom;
    both -= other.both;
  }
  // Sum of z f, with z interpolated from the corners.
  __attribute__((always_inline)) VectorOf<Real> times(const Corners<Real>& z) const {
    const VectorOf<Real> across = z.top_right - z.top_left;
    return z.top_left * plain + across * right + (z.bottom_left - z.top_left) * bottom +
           (z.bottom_right - z.bottom_left - across) * both;
  }
};

// The same with one of the axes as the one that is walked along.
template <class Real>
struct LineSums {
  VectorOf<Real> plain = splat(Real(0)), along = plain, across = plain, both = plain, softplus = plain;

  // Adds a line at `position` across that stands for `weight` lines.
  __attribute__((always_inline)) void add(Real weight, Real position, VectorOf<Real> f, VectorOf<Real> moment,
                                          VectorOf<Real> value) {
    const Real weighted = weight * position;
    plain += weight * f;
    along += weight * moment;
    across += weighted * f;
    both += weighted * moment;
    softplus += weight * value;
  }
};

template <class Real, bool SOFTPLUS>
CISS_INLINE LineSums<Real> sum_nodes(const Corners<Real>& z, const Piece<Real>& x, NodeRange along,
                                     const Piece<Real>& y, NodeRange across) {
  typedef VectorOf<Real> V;
  LineSums<Real> sums;
  const V left_change = z.bottom_left - z.top_left, right_change = z.bottom_right - z.top_right;
  const Real *fraction = x.fraction + along.offset, *weight = x.weight + along.offset;
  for (int j = across.offset; j < across.offset + across.count; j++) {
    const Real s = y.fraction[j];
    const V left = z.top_left + s * left_change, change = z.top_right + s * right_change - left;
    V plain = splat(Real(0)), moment = plain, value = plain;
    for (int i = 0; i < along.count; i++) {
      V sigmoid, softplus;
      sigmoid_parts<Real>(left + fraction[i] * change, sigmoid, softplus);
      sigmoid *= weight[i];
      plain += sigmoid;
      moment += fraction[i] * sigmoid;
      if (SOFTPLUS) value += weight[i] * softplus;
    }
    sums.add(y.weight[j], s, plain, moment, value);
  }
  return sums;
}

// --- The geometric form, single precision.
//
// With the sign of z turned so that the line starts at z <= 0, e_k = E R^k is the sequence from the middle pixel
// outwards, d_k = 1 + e_k, sigmoid = e_k / d_k; four reciprocals come from that of a product of four. The softplus of
// a line is the log of the product of its d_k; where all e_k are small that product would lose them, and
// log(1 + e) = sigmoid + sigmoid^2 / 2 + ... serves.
constexpr float TAIL = -7.5f;           // log2 of the e_k below which a whole line has to stay for that
constexpr float TAIL_LINEAR = 0.99999874f, TAIL_SQUARE = 0.50183f;  // minimax up to there, relative error 1.3e-6
constexpr float LARGEST_PRODUCT = 120;  // log2 of the largest product of the d_k of a line

struct GeometricLine {
  Float plain = splat(0.f), moment = plain, squares = plain, product = splat(1.f);  // moment: of the pixel's number

  // Pixels first, first + direction, ...; `e` is that of the first one.
  template <bool SOFTPLUS>
  __attribute__((always_inline)) void half(Float e, Float ratio, float first, float direction, int count) {
    const Float square = ratio * ratio, fourth = square * square;
    Float odd = e * ratio, sum = splat(0.f), steps = sum, number = sum;  // steps: moment of the distance from the first
    int k = 0;
    for (; k + 4 <= count; k += 4) {
      const Float e2 = e * square, e3 = odd * square;
      const Float d0 = 1.f + e, d1 = 1.f + odd, d2 = 1.f + e2, d3 = 1.f + e3;
      const Float d01 = d0 * d1, d23 = d2 * d3, all = d01 * d23, inverse = reciprocal(all);
      const Float inverse01 = inverse * d23, inverse23 = inverse * d01;
      const Float s0 = e * d1 * inverse01, s1 = odd * d0 * inverse01;
      const Float s2 = e2 * d3 * inverse23, s3 = e3 * d2 * inverse23;
      const Float s23 = s2 + s3, group = s0 + s1 + s23;
      sum += group;
      steps += number * group + (s1 + s3 + (s23 + s23));
      number += 4.f;
      if (SOFTPLUS) {
        product *= all;
        squares += s0 * s0;
        squares += s1 * s1;
        squares += s2 * s2;
        squares += s3 * s3;
      }
      e *= fourth;
      odd *= fourth;
    }
    for (; k < count; k++) {
      const Float d = 1.f + e, s = e * reciprocal(d);
      sum += s;
      steps += number * s;
      number += 1.f;
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

// Largest change of a logit per pixel, in log2 units, that the geometric form allows for pieces of this length.
CISS_INLINE float geometric_limit(int length) {
  const int half = length / 2;
  return (LARGEST_PRODUCT - float(length)) / (0.5f * float(half * (half + 1)));
}

template <bool SOFTPLUS>
CISS_INLINE LineSums<float> sum_geometric(const Corners<float>& z, const Piece<float>& x, const Piece<float>& y,
                                          NodeRange across) {
  LineSums<float> sums;
  const int middle = x.length / 2, after = x.length - middle;  // the middle pixel is the first of `after`
  const float at_middle = x.fraction[x.nodes[EVERY_PIXEL].offset + middle], pixels = float(x.length);
  const float numbers = 0.5f * float(after * (after - 1) - middle * (middle + 1));  // sum of the pixels' numbers
  const Float left_change = z.bottom_left - z.top_left, right_change = z.bottom_right - z.top_right;
  for (int j = across.offset; j < across.offset + across.count; j++) {
    const float s = y.fraction[j];
    const Float left = z.top_left + s * left_change, change = z.top_right + s * right_change - left;
    const Float centre = left + at_middle * change, slope = x.step * change;
    const FloatMask turned = centre > 0.f, sign = turned & INT32_MIN;
    const Float exponent = -magnitude(centre), growth = (Float)((FloatMask)slope ^ sign);
    const Float e = exp2<float>(exponent), ratio = exp2_in_range<float>(growth), inverse = reciprocal(ratio);
    GeometricLine line;
    line.half<SOFTPLUS>(e, ratio, 0, 1, after);
    line.half<SOFTPLUS>(e * inverse, inverse, -1, -1, middle);
    const Float plain = turned ? pixels - line.plain : line.plain;
    const Float moment = turned ? numbers - line.moment : line.moment;
    Float value = splat(0.f);
    if (SOFTPLUS) {
      const FloatMask tail = exponent + float(after) * magnitude(growth) < TAIL;
      const Float small = (TAIL_LINEAR * line.plain + TAIL_SQUARE * line.squares) * 1.44269504f;
      value = (tail ? small : log2<float>(line.product)) + keep(turned, pixels * centre + numbers * slope);
    }
    sums.add(y.weight[j], s, plain, at_middle * plain + x.step * moment, value);
  }
  return sums;
}

// --- Which form where.

// The level whose rule serves a change of a logit over the piece (log2 units).
template <class Real>
CISS_INLINE int level_of(Real change) {
  int level = 0;
  for (double limit : RULE_LIMIT) level += !(change <= Real(limit * 1.44269504088896340736));
  return level;
}

// Rough numbers of vector operations.
constexpr int NODE_COST = 32, LINE_COST = 95, PIXEL_COST = 10, SHORTEST_GEOMETRIC = 5;

// Moments of the sigmoid; with SOFTPLUS also its sum, in log2 units.
template <bool SOFTPLUS>
CISS_INLINE void sum_cell(const Corners<float>& z, const Piece<float>& x, const Piece<float>& y, Moments<float>& moments,
                          Float& softplus) {
  const float change_x = x.step * largest_lane(larger(magnitude(z.top_right - z.top_left),
                                                      magnitude(z.bottom_right - z.bottom_left)));
  const float change_y = y.step * largest_lane(larger(magnitude(z.bottom_left - z.top_left),
                                                      magnitude(z.bottom_right - z.top_right)));
  const NodeRange nodes_x = x.nodes[level_of(change_x * float(x.length))];
  const NodeRange nodes_y = y.nodes[level_of(change_y * float(y.length))];
  const int never = 1 << 30;
  const int cost = NODE_COST * nodes_x.count * nodes_y.count;
  const int cost_x = x.length >= SHORTEST_GEOMETRIC && change_x <= geometric_limit(x.length)
                         ? nodes_y.count * (LINE_COST + PIXEL_COST * x.length) : never;
  const int cost_y = y.length >= SHORTEST_GEOMETRIC && change_y <= geometric_limit(y.length)
                         ? nodes_x.count * (LINE_COST + PIXEL_COST * y.length) : never;
  LineSums<float> sums;
  if (cost <= cost_x && cost <= cost_y) {
    sums = sum_nodes<float, SOFTPLUS>(z, x, nodes_x, y, nodes_y);
  } else if (cost_x <= cost_y) {
    sums = sum_geometric<SOFTPLUS>(z, x, y, nodes_y);
  } else {
    sums = sum_geometric<SOFTPLUS>(z.transposed(), y, x, nodes_x);
    moments = {sums.plain, sums.across, sums.along, sums.both};
    softplus = sums.softplus;
    return;
  }
  moments = {sums.plain, sums.along, sums.across, sums.both};
  softplus = sums.softplus;
}

template <bool SOFTPLUS>
CISS_INLINE void sum_cell(const Corners<double>& z, const Piece<double>& x, const Piece<double>& y,
                          Moments<double>& moments, Double& softplus) {
  const LineSums<double> sums = sum_nodes<double, SOFTPLUS>(z, x, x.nodes[EVERY_PIXEL], y, y.nodes[EVERY_PIXEL]);
  moments = {sums.plain, sums.along, sums.across, sums.both};
  softplus = sums.softplus;
}

}  // namespace CISS_ISA
}  // namespace ciss
