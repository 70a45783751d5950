// Gauss quadrature for a sum over equally spaced points.
//
// The `count`-node rule of the measure that puts weight 1 on each of N points is exact for polynomials of degree below
// 2 count. Its nodes are the zeros of the Gram (discrete Legendre) polynomial p_count, which obeys
//   p_{k+1}(x) = x p_k(x) - b_k p_{k-1}(x),   b_k = k^2 (N^2 - k^2) / (4 (4 k^2 - 1)),
// with x measured from the middle of the points in units of their distance.
#pragma once

#include <cmath>
#include <vector>

namespace ciss {

struct GaussRule {
  std::vector<double> position;  // from the middle of the points, in units of their distance, increasing
  std::vector<double> weight;    // add up to the number of points
};

// 1 <= count < points.
inline GaussRule gauss_rule(int points, int count) {
  const double n = points;
  const auto recurrence = [&](int k) { return k * k * (n * n - double(k) * k) / (4 * (4.0 * k * k - 1)); };
  // Orthonormal polynomials at x: value of p_count (not normalised) and the sum of squares of those below it.
  const auto evaluate = [&](double x, double& sum_of_squares) {
    double before = 0, value = 1, norm = n;
    sum_of_squares = 1 / norm;
    for (int k = 0; k < count; k++) {
      const double b = k ? recurrence(k) : 0, next = x * value - b * before;
      before = value;
      value = next;
      norm *= recurrence(k + 1);
      if (k + 1 < count) sum_of_squares += value * value / norm;
    }
    return value;
  };
  GaussRule rule;
  double unused;
  // Between two neighbouring points lies at most one zero: find the changes of sign, then halve.
  const double first = -(n - 1) / 2;
  for (int i = 0; i + 1 < points && int(rule.position.size()) < count; i++) {
    double low = first + i, high = low + 1;
    const double at_low = evaluate(low, unused), at_high = evaluate(high, unused);
    if (at_low != 0 && (at_low > 0) == (at_high > 0) && at_high != 0) continue;
    if (at_low == 0) {
      high = low;
    } else if (at_high == 0) {
      continue;  // found as the next interval's lower end
    }
    for (int step = 0; step < 100 && low < high; step++) {
      const double middle = (low + high) / 2, value = evaluate(middle, unused);
      if (middle <= low || middle >= high) break;
      (value > 0) == (at_low > 0) ? low = middle : high = middle;
    }
    rule.position.push_back((low + high) / 2);
  }
  for (double x : rule.position) {
    double sum_of_squares;
    evaluate(x, sum_of_squares);
    rule.weight.push_back(1 / sum_of_squares);
  }
  return rule;
}

}  // namespace ciss
