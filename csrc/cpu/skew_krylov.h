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
};
template <>
struct Accuracy<double> {
  static constexpr double wanted = 1e-14, accepted = 1e-8;
};

template <class Real>
class SkewKrylov {
 public:
  // After so many of them the residual must have come down to a tenth: it will hardly get far enough otherwise.
  static constexpr int TRIAL_PRODUCTS = 16;
  // So many with a small S leave no room for the recurrences to drift: the residual need not be computed afresh.
  static constexpr int FEW_PRODUCTS = 8;

  SkewKrylov(const SkewTiles<Real>& twice_skew, int64_t dimension, Scratch& scratch)
      : twice_skew(twice_skew), size(SkewTiles<Real>::padded(dimension)) {
    v = scratch.take<Real>(size);
    v_before = scratch.take<Real>(size);
    w = scratch.take<Real>(size);
    w_before = scratch.take<Real>(size);
    product = scratch.take<Real>(size);
    residual = scratch.take<Real>(size);
  }

  // Solves (I + sign S) x = b for a `b` of norm 1 or 0. Returns the number of products it took; -1 where about
  // `most_products` do not suffice or something is not finite.
  int solve(int sign, const Real* b, Real* x, int most_products) {
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
      if (norm > 0 && !add_correction(norm, x)) return -1;
      if (norm > 0 && products <= FEW_PRODUCTS && largest_beta < 1) break;
      const double before = norm;
      norm = subtract_from(b, x);
      if (!(norm <= 0.5 * before)) return -1;
    } while (norm > Accuracy<Real>::accepted);
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
    twice_skew.multiply(x, product);
    products++;
    V squares{};
    for (int64_t i = 0; i < size; i += L) {
      const V r = load(b + i) - load(x + i) - load(product + i) * half;
      store(residual + i, r);
      squares += r * r;
    }
    return __builtin_sqrt(sum_of_lanes(squares));
  }

  // Adds the solution for `residual`, whose norm is given, to x. False where that takes too many products.
  bool add_correction(double norm, Real* x) {
    const Real scale = Real(1 / norm);
    for (int64_t i = 0; i < size; i += L) {
      store(v + i, load(residual + i) * scale);
      store(v_before + i, V{});
      store(w + i, V{});
      store(w_before + i, V{});
    }
    double beta = 0, cosine = 1, sine = 0, sine_before = 0, remaining = norm;
    while (__builtin_fabs(remaining) > Accuracy<Real>::wanted) {
      if (products >= most || (products == TRIAL_PRODUCTS && __builtin_fabs(remaining) > 0.1)) return false;
      twice_skew.multiply(v, product);
      products++;
      V squares{};
      for (int64_t i = 0; i < size; i += L) {
        const V p = load(product + i) * half + load(v_before + i) * Real(beta);
        store(product + i, p);
        squares += p * p;
      }
      const double next_beta = __builtin_sqrt(sum_of_lanes(squares));
      if (next_beta > largest_beta) largest_beta = next_beta;
      const double diagonal = __builtin_sqrt(1 / (cosine * cosine) + next_beta * next_beta);
      const double coupling = sine_before * beta;
      cosine = 1 / (cosine * diagonal);
      sine_before = sine;
      sine = next_beta / diagonal;
      const Real of_v = Real(1 / diagonal), of_w = Real(coupling / diagonal), step = Real(cosine * remaining);
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

  static void swap(Real*& a, Real*& b) {
    Real* const c = a;
    a = b;
    b = c;
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
