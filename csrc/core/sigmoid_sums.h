// Sums of sigmoid and softplus over the pixels of a cell, whose logits are bilinear: the arithmetic that CPU and GPU kernels
// share. ciss_fast/ops/sigmoid_loss/README.md derives it. Logits are in log2 units.
//
// Where the logits change little, a Gauss rule takes a few nodes instead of all pixels. Where they change much in one
// direction, the pixels of that direction are taken one by one, but as a geometric sequence: e^z along a line is E R^k.
//
// `Operations` says what the arithmetic is made of:
//   Number              vector of channels, or one channel's number; Scalar: the type of its elements
//   parts               sigmoid and softplus of a Number
//   exp2_of_negative, log2, reciprocal, magnitude, turned (x, or -x where a mask is set), kept (x, or 0 where it is not)
//   growths             2^x and 2^-x for x within the geometric form's limits
#pragma once

#include "host_device.h"

namespace ciss {

// log2(1 + e) / e for 0 <= e <= 1 in single precision: minimax, relative error 2e-7.
template <class Number>
CISS_KERNEL_INLINE Number log2_1p_quotient_of(Number e) {
  Number p = e * -1.23405756e-2f + 6.36885762e-2f;
  p = p * e - 1.55475363e-1f;
  p = p * e + 2.56106079e-1f;
  p = p * e - 3.53435159e-1f;
  p = p * e + 4.80072379e-1f;
  p = p * e - 7.21310914e-1f;
  return p * e + 1.44269478f;
}

// The four logits of a cell.
template <class Number>
struct CellCorners {
  Number top_left, top_right, bottom_left, bottom_right;

  CISS_KERNEL_INLINE CellCorners transposed() const { return {top_left, bottom_left, top_right, bottom_right}; }
  template <class Function>
  CISS_KERNEL_INLINE CellCorners map(Function f) const {
    return {f(top_left), f(top_right), f(bottom_left), f(bottom_right)};
  }
};

// The logits along a row of pixels, `s` being the weight of the bottom ones.
template <class Number>
struct CellLine {
  Number left, change;

  template <class Scalar>
  CISS_KERNEL_INLINE CellLine(const CellCorners<Number>& z, Scalar s)
      : left(z.top_left + s * (z.bottom_left - z.top_left)),
        change(z.top_right + s * (z.bottom_right - z.top_right) - left) {}
  template <class Scalar>
  CISS_KERNEL_INLINE Number at(Scalar t) const {
    return left + t * change;
  }
};

// Sums over the pixels of f, t f, s f and s t f, with t and s the weights of the right and of the bottom logits; and of
// the loss.
template <class Number>
struct CellSums {
  Number plain{}, right{}, bottom{}, both{}, value{};

  // Adds a row of pixels at `s`, or `weight` of them.
  template <class Scalar>
  CISS_KERNEL_INLINE void add(Scalar weight, Scalar s, Number f, Number t_f, Number loss) {
    const Scalar weighted = weight * s;
    plain += weight * f;
    right += weight * t_f;
    bottom += weighted * f;
    both += weighted * t_f;
    value += weight * loss;
  }
  CISS_KERNEL_INLINE CellSums transposed() const { return {plain, bottom, right, both, value}; }
  // All but the loss.
  template <class Function>
  CISS_KERNEL_INLINE void map(Function f) {
    plain = f(plain);
    right = f(right);
    bottom = f(bottom);
    both = f(both);
  }
  CISS_KERNEL_INLINE void subtract(const CellSums& other) {
    plain -= other.plain;
    right -= other.right;
    bottom -= other.bottom;
    both -= other.both;
  }
  // Sum of z f, with z interpolated from the corners.
  CISS_KERNEL_INLINE Number times(const CellCorners<Number>& z) const {
    const Number across = z.top_right - z.top_left;
    return z.top_left * plain + across * right + (z.bottom_left - z.top_left) * bottom +
           (z.bottom_right - z.bottom_left - across) * both;
  }
};

// The way back of the interpolation: the gradient on the corners.
template <class Number>
CISS_KERNEL_INLINE CellCorners<Number> on_corners(const CellSums<Number>& sums) {
  const Number at_bottom_left = sums.bottom - sums.both;
  return {sums.plain - sums.right - at_bottom_left, sums.right - sums.both, at_bottom_left, sums.both};
}

// A place of an axis where the logits are taken: weight of the right (of rows: bottom) ones, pixels it stands for.
template <class Scalar>
struct alignas(2 * sizeof(Scalar)) CellNode {
  Scalar position, weight;
};

// SOFTPLUS: with the loss. Nodes: `count` and, by number, CellNodes.
template <bool SOFTPLUS, class Operations, class Nodes>
CISS_KERNEL_INLINE CellSums<typename Operations::Number> sum_nodes(
    const CellCorners<typename Operations::Number>& z, const Nodes& along, const Nodes& across) {
  typedef typename Operations::Number Number;
  CellSums<Number> sums;
  for (int j = 0; j < across.count; j++) {
    const auto row = across[j];
    const CellLine<Number> line(z, row.position);
    Number plain{}, moment{}, value{};
    for (int i = 0; i < along.count; i++) {
      const auto node = along[i];
      Number sigmoid, softplus;
      Operations::parts(line.at(node.position), sigmoid, softplus);
      sigmoid *= node.weight;
      plain += sigmoid;
      moment += node.position * sigmoid;
      if (SOFTPLUS) value += node.weight * softplus;
    }
    sums.add(row.weight, row.position, plain, moment, value);
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

template <class Operations>
struct GeometricLine {
  typedef typename Operations::Number Number;
  Number plain{}, moment{}, squares{}, product = Number{} + 1.f;  // moment: of the pixel's number

  // Pixels first, first + direction, ...; `e` is that of the first one.
  template <bool SOFTPLUS>
  CISS_KERNEL_INLINE void half(Number e, Number ratio, float first, float direction, int count) {
    const Number square = ratio * ratio, fourth = square * square;
    Number odd = e * ratio, sum{}, steps{}, number{};  // steps: moment of the distance from the first
    int k = 0;
    for (; k + 4 <= count; k += 4) {
      const Number e2 = e * square, e3 = odd * square;
      const Number d0 = 1.f + e, d1 = 1.f + odd, d2 = 1.f + e2, d3 = 1.f + e3;
      const Number d01 = d0 * d1, d23 = d2 * d3, all = d01 * d23, inverse = Operations::reciprocal(all);
      const Number inverse01 = inverse * d23, inverse23 = inverse * d01;
      const Number s0 = e * d1 * inverse01, s1 = odd * d0 * inverse01;
      const Number s2 = e2 * d3 * inverse23, s3 = e3 * d2 * inverse23;
      const Number s23 = s2 + s3, group = s0 + s1 + s23;
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
      const Number d = 1.f + e, s = e * Operations::reciprocal(d);
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

// Lines of `length` pixels along an axis whose middle pixel and step these are, at nodes of the other axis.
template <bool SOFTPLUS, class Operations, class Nodes>
CISS_KERNEL_INLINE CellSums<typename Operations::Number> sum_geometric(
    const CellCorners<typename Operations::Number>& z, int length, float at_middle, float step, const Nodes& across) {
  typedef typename Operations::Number Number;
  CellSums<Number> sums;
  const int middle = length / 2, after = length - middle;  // the middle pixel is the first of `after`
  const float pixels = float(length);
  const float numbers = 0.5f * float(after * (after - 1) - middle * (middle + 1));  // sum of the pixels' numbers
  for (int j = 0; j < across.count; j++) {
    const auto row = across[j];
    const CellLine<Number> at(z, row.position);
    const Number centre = at.at(at_middle), slope = step * at.change;
    const auto turn = centre > 0.f;
    const Number exponent = -Operations::magnitude(centre), growth = Operations::turned(slope, turn);
    const Number e = Operations::exp2_of_negative(exponent);
    Number ratio, inverse;
    Operations::growths(growth, ratio, inverse);
    GeometricLine<Operations> line;
    line.template half<SOFTPLUS>(e, ratio, 0, 1, after);
    line.template half<SOFTPLUS>(e * inverse, inverse, -1, -1, middle);
    const Number plain = turn ? pixels - line.plain : line.plain;
    const Number moment = turn ? numbers - line.moment : line.moment;
    Number value{};
    if (SOFTPLUS) {
      const auto tail = exponent + float(after) * Operations::magnitude(growth) < TAIL;
      const Number small = (TAIL_LINEAR * line.plain + TAIL_SQUARE * line.squares) * 1.44269504f;
      value = (tail ? small : Operations::log2(line.product)) + Operations::kept(pixels * centre + numbers * slope, turn);
    }
    sums.add(row.weight, row.position, plain, at_middle * plain + step * moment, value);
  }
  return sums;
}

// --- Which form where.

enum class CellForm { nodes, along_rows, along_columns };

// Rough numbers of operations: of a node, of a line, and of a pixel of a line.
struct FormCosts {
  int node, line, pixel;
};
constexpr int SHORTEST_GEOMETRIC = 5;

// One axis of a cell: pixels, nodes that its rule takes, largest change of a logit from pixel to pixel.
struct CellExtent {
  int length, nodes;
  float change;

  // Whether a line along it may be taken as a geometric sequence.
  CISS_KERNEL_INLINE bool geometric() const {
    const int half = length / 2;
    return length >= SHORTEST_GEOMETRIC &&
           change <= (LARGEST_PRODUCT - float(length)) / (0.5f * float(half * (half + 1)));
  }
};

// x: along the rows of pixels.
CISS_KERNEL_INLINE CellForm cheapest_form(const FormCosts& costs, const CellExtent& x, const CellExtent& y) {
  const int never = 1 << 30, cost = costs.node * x.nodes * y.nodes;
  const int cost_x = x.geometric() ? y.nodes * (costs.line + costs.pixel * x.length) : never;
  const int cost_y = y.geometric() ? x.nodes * (costs.line + costs.pixel * y.length) : never;
  if (cost <= cost_x && cost <= cost_y) return CellForm::nodes;
  return cost_x <= cost_y ? CellForm::along_rows : CellForm::along_columns;
}

}  // namespace ciss
