// C = A B and C -= A B for small matrices that stay in the caches; compiled once per instruction set (see simd.h).
#pragma once

#include "interleave.h"

namespace ciss {
namespace CISS_ISA {

// Row-major; `rows` apart. A's entries may be at any distances.
template <class Real>
struct Matrix {
  Real* data;
  int64_t stride;

  Matrix part(int64_t row, int64_t column) const { return {data + row * stride + column, stride}; }
};
template <class Real>
struct LeftMatrix {
  const Real* data;
  int64_t row_stride, column_stride;
};

// The products of as many rows of A as a vector has lanes with x [columns], a multiple of the lanes.
template <class Real>
CISS_INLINE VectorOf<Real> products_with_vector(const Matrix<Real>& A, const Real* x, int64_t columns) {
  constexpr int L = Simd<Real>::lanes;
  VectorOf<Real> sums[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; i++) sums[i] = VectorOf<Real>{};
  for (int64_t j = 0; j < columns; j += L) {
    const VectorOf<Real> x_part = load(x + j);
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) sums[i] += load(A.data + i * A.stride + j) * x_part;
  }
  return sums_of_rows<Real>(sums);
}

// ROWS rows and VECTORS vectors of C, kept in registers over the whole depth.
template <bool SUBTRACT, int ROWS, int VECTORS, class Real>
CISS_INLINE void product_block(const LeftMatrix<Real>& A, const Matrix<const Real>& B, const Matrix<Real>& C,
                               int64_t row, int64_t column, int64_t depth) {
  constexpr int L = Simd<Real>::lanes;
  const Real* a = A.data + row * A.row_stride;
  const Real* b = B.data + column;
  Real* const c = C.data + row * C.stride + column;
  VectorOf<Real> sums[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) sums[i][v] = SUBTRACT ? load(c + i * C.stride + v * L) : VectorOf<Real>{};
  for (int64_t k = 0; k < depth; k++, a += A.column_stride, b += B.stride) {
    VectorOf<Real> b_row[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) b_row[v] = load(b + v * L);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) {
      const Real factor = a[i * A.row_stride];
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++)
        if (SUBTRACT)
          sums[i][v] -= b_row[v] * factor;
        else
          sums[i][v] += b_row[v] * factor;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) store(c + i * C.stride + v * L, sums[i][v]);
}

// C [rows, columns] = A [rows, depth] B [depth, columns], or subtracts the product from C. `columns` is a multiple of a
// vector's lanes.
template <bool SUBTRACT, class Real>
CISS_LOOP void matrix_product(const LeftMatrix<Real>& A, const Matrix<const Real>& B, const Matrix<Real>& C,
                              int64_t rows, int64_t depth, int64_t columns) {
  constexpr int L = Simd<Real>::lanes, ROWS = CISS_VECTOR_BYTES == 64 ? 8 : 4;
  const int64_t full_rows = rows / ROWS * ROWS;
  int64_t column = 0;
  if (full_rows) {
    for (; column + 2 * L <= columns; column += 2 * L)
      for (int64_t row = 0; row < full_rows; row += ROWS)
        product_block<SUBTRACT, ROWS, 2>(A, B, C, row, column, depth);
    for (; column < columns; column += L)
      for (int64_t row = 0; row < full_rows; row += ROWS)
        product_block<SUBTRACT, ROWS, 1>(A, B, C, row, column, depth);
  }
  for (int64_t row = full_rows; row < rows; row++) {
    for (column = 0; column + 8 * L <= columns; column += 8 * L)
      product_block<SUBTRACT, 1, 8>(A, B, C, row, column, depth);
    for (; column < columns; column += L) product_block<SUBTRACT, 1, 1>(A, B, C, row, column, depth);
  }
}

}  // namespace CISS_ISA
}  // namespace ciss
