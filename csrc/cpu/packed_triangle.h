// U - U^T from the packed entries of U above its diagonal: written out, and multiplied in double precision; compiled
// once per instruction set (see simd.h).
#pragma once

#include "interleave.h"
#include "matrix_product.h"

namespace ciss {
namespace CISS_ISA {

CISS_INLINE Double load_double(const double* p) { return load(p); }
CISS_INLINE Double load_double(const float* p) {
  typedef float Half __attribute__((vector_size(CISS_VECTOR_BYTES / 2)));
  Half h;
  memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, Double);
}

// 0, or NaN where one of the numbers is not finite.
template <class Real>
CISS_INLINE Real poison_of(const Real* x, int64_t count) {
  constexpr int L = Simd<Real>::lanes;
  VectorOf<Real> poison{};
  int64_t i = 0;
  for (; i + L <= count; i += L) poison += load(x + i) * Real(0);
  Real rest = 0;
  for (; i < count; i++) rest += x[i] * Real(0);
  return Real(sum_of_lanes(poison)) + rest;
}

// Row by row, as `torch.triu_indices(dimension, dimension, 1)` counts them.
template <class Real>
struct PackedTriangle {
  const Real* entries;
  int64_t dimension;

  int64_t count() const { return dimension * (dimension - 1) / 2; }

  bool finite() const { return poison_of(entries, count()) == 0; }

  // I + scale (U - U^T), filled up to `order` rows and columns by those of the identity.
  template <class Element>
  CISS_LOOP void write_shifted(Element scale, const Matrix<Element>& out, int64_t order) const {
    constexpr int L = Simd<Element>::lanes;
    const Real* row_entries = entries;
    for (int64_t i = 0; i < order; i++) {
      Element* row = out.part(i, 0).data;
      row[i] = 1;
      for (int64_t j = i + 1; j < order; j++) row[j] = 0;
      if (i >= dimension) continue;
      for (int64_t j = i + 1; j < dimension; j++) row[j] = scale * Element(row_entries[j - i - 1]);
      row_entries += dimension - i - 1;
    }
    // Below the diagonal: minus the transpose, in squares.
    for (int64_t i = 0; i < order; i += L)
      for (int64_t j = i; j < order; j += L) {
        VectorOf<Element> square[L];
        for (int k = 0; k < L; k++) square[k] = load(out.part(i + k, j).data);
        transpose<Element>(square);
        for (int k = 0; k < L; k++)
          if (j > i)
            store(out.part(j + k, i).data, -square[k]);
          else
            for (int l = 0; l < k; l++) out.part(j + k, i).data[l] = -square[k][l];
      }
  }

  // r = b - x - scale (U - U^T) x; returns its norm.
  CISS_LOOP double residual(double scale, const double* b, const double* x, double* r) const {
    constexpr int L = Simd<double>::lanes;
    for (int64_t i = 0; i < dimension; i++) r[i] = b[i] - x[i];
    const Real* t = entries;
    for (int64_t i = 0; i < dimension; i++) {
      const double x_row = scale * x[i];
      Double sums{}, more_sums{};  // two, so that one addition need not wait for the other
      double sum = 0;
      int64_t j = i + 1;
      for (; j + 2 * L <= dimension; j += 2 * L, t += 2 * L) {
        const Double e = load_double(t), f = load_double(t + L);
        sums += e * load(x + j);
        more_sums += f * load(x + j + L);
        store(r + j, load(r + j) + e * x_row);
        store(r + j + L, load(r + j + L) + f * x_row);
      }
      for (; j < dimension; j++, t++) {
        sum += double(*t) * x[j];
        r[j] += double(*t) * x_row;
      }
      r[i] -= scale * (sum + sum_of_lanes(sums + more_sums));
    }
    double squares = 0;
    for (int64_t i = 0; i < dimension; i++) squares += r[i] * r[i];
    return __builtin_sqrt(squares);
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
