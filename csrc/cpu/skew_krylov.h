// Minimal residuals for I + S with a skew-symmetric S; compiled once per instruction set (see simd.h).
// ciss_fast/ops/cayley_rotate/README.md derives the recurrences.
#pragma once

#include "skew_tiles.h"

namespace ciss {
namespace CISS_ISA {

// How accurate a solution has to be: norms of the residual b - (I + S) x for a right side of norm 1. No eigenvalue of
// I + S is smaller than 1, so the error of x is at most that large.
template <class Real>
struct Accuracy;
template <>
struct Accuracy<float> {
  static constexpr double wanted = 5e-7, accepted = 1e-6;
  static constexpr double wanted_of_gradient = 1.5e-6;  // as far as a gradient in float32 is off anyway
};
template <>
struct Accuracy<double> {
  static constexpr double wanted = 1e-14, accepted = 1e-8;
  static constexpr double wanted_of_gradient = 1e-14;
};

template <class Real>
class SkewKrylov {
 public:
  // After so many of them the residual must have come down to a tenth: it will hardly get far enough otherwise.
  static constexpr int TRIAL_PRODUCTS = 16;
  // With so few products and a small S (the entries of the tridiagonal matrix are at most its norm) the recurrence's
  // residual is the true one to 2e-7: it need not be computed afresh.
  static constexpr int FEW_PRODUCTS = 56;
  static constexpr double SMALL_BETA = 3;

  SkewKrylov(const SkewTiles<Real>& twice_skew, int64_t dimension, Scratch& scratch)
      : twice_skew(twice_skew), size(SkewTiles<Real>::padded(dimension)) {
    v = scratch.take<Real>(size);
    v_before = scratch.take<Real>(size);
    w = scratch.take<Real>(size);
    w_before = scratch.take<Real>(size);
    product = scratch.take<Real>(size);
    residual = scratch.take<Real>(size);
  }

  // Solves (I + sign S) x = b for a `b` of norm 1 or 0, to a residual of about `wanted`. Returns the number of products
  // it took; -1 where about `most_products` do not suffice or something is not finite.
  int solve(int sign, const Real* b, Real* x, int most_products, double wanted = Accuracy<Real>::wanted) {
    half = Real(0.5) * Real(sign);
    most = most_products;
    V squares{};
    for (int64_t i = 0; i < size; i += L) {
      store(x + i, V{});
      store(residual + i, load(b + i));
      squares += load(b + i) * load(b + i);
    }
    products = 0;
    largest_beta = 0;
    double norm = __builtin_sqrt(sum_of_lanes(squares));
    do {
      if (norm > 0 && !add_correction(norm, wanted, x)) return -1;
      if (norm > 0 && products <= FEW_PRODUCTS && largest_beta < SMALL_BETA) break;
      const double before = norm;
      norm = subtract_from(b, x);
      if (!(norm <= 0.5 * before)) return -1;
    } while (norm > wanted / Accuracy<Real>::wanted * Accuracy<Real>::accepted);
    return products;
  }

 private:
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes;

  const SkewTiles<Real>& twice_skew;  // U - U^T
  Real half = 0;
  const int64_t size;  // of padded vectors
  int products = 0, most = 0;
  double largest_beta = 0;  // entry of the tridiagonal matrix
  Real *v, *v_before, *w, *w_before, *product, *residual;

  // residual = b - (I + S) x; returns its norm.
  double subtract_from(const Real* b, const Real* x) {
    twice_skew.multiply(x, product, products % 2);
    products++;
    V squares{};
    for (int64_t i = 0; i < size; i += L) {
      const V r = load(b + i) - load(x + i) - load(product + i) * half;
      store(residual + i, r);
      squares += r * r;
    }
    return __builtin_sqrt(sum_of_lanes(squares));
  }

  // Adds the solution for `residual`, whose norm is given, to x, to `wanted`. False where that takes too many products.
  bool add_correction(double norm, double wanted, Real* x) {
    const Real scale = Real(1 / norm);
    for (int64_t i = 0; i < size; i += L) {
      store(v + i, load(residual + i) * scale);
      store(v_before + i, V{});
      store(w + i, V{});
      store(w_before + i, V{});
    }
    double beta = 0, secant = 1, sine = 0, sine_before = 0, remaining = norm;
    while (__builtin_fabs(remaining) > wanted) {
      if (products >= most || (products == TRIAL_PRODUCTS && __builtin_fabs(remaining) > 0.1)) return false;
      twice_skew.multiply(v, product, products % 2);
      products++;
      const double squares = take_direction(Real(beta)), next_beta = __builtin_sqrt(squares);
      if (next_beta > largest_beta) largest_beta = next_beta;
      const double diagonal = __builtin_sqrt(secant * secant + squares), reciprocal = 1 / diagonal;
      const double cosine = secant * reciprocal, coupling = sine_before * beta;
      secant = 1 / cosine;
      sine_before = sine;
      sine = next_beta * reciprocal;
      const Real of_v = Real(reciprocal), of_w = Real(coupling * reciprocal), step = Real(cosine * remaining);
      const Real normalise = next_beta > 0 ? Real(1 / next_beta) : Real(0);
      for (int64_t i = 0; i < size; i += L) {
        const V next_w = load(v + i) * of_v + load(w_before + i) * of_w;
        store(w_before + i, next_w);
        store(x + i, load(x + i) + next_w * step);
        store(v_before + i, load(product + i) * normalise);
      }
      swap(v, v_before);
      swap(w, w_before);
      beta = next_beta;
      remaining *= -sine;
    }
    return remaining == remaining;
  }

  // product = half product + beta v_before; returns the sum of its squares.
  double take_direction(Real beta) {
    constexpr int CHAINS = 4;  // of additions that wait for one another
    V squares[CHAINS]{};
    int64_t i = 0;
    for (; i + CHAINS * L <= size; i += CHAINS * L)
#pragma GCC unroll 4
      for (int k = 0; k < CHAINS; k++) add_direction(i + k * L, beta, squares[k]);
    for (; i < size; i += L) add_direction(i, beta, squares[0]);
    return sum_of_lanes((squares[0] + squares[1]) + (squares[2] + squares[3]));
  }

  void add_direction(int64_t i, Real beta, V& squares) {
    const V p = load(product + i) * half + load(v_before + i) * beta;
    store(product + i, p);
    squares += p * p;
  }

  static void swap(Real*& a, Real*& b) {
    Real* const c = a;
    a = b;
    b = c;
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
