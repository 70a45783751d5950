// Elimination without pivots, for matrices whose symmetric part is positive definite; compiled once per instruction set
// (see simd.h).
#pragma once

#include "matrix_product.h"

namespace ciss {
namespace CISS_ISA {

// A = L U, L's diagonal being 1, both in the place of A, by halves: two factorisations of half the size, two triangular
// solutions and a product. Blocks of 16 x 16 are eliminated row by row; the inverses of their triangles are kept, so
// that solutions are products too.
template <class Real>
class UnpivotedLu {
 public:
  static constexpr int BLOCK = 16, CHUNK = 64;

  static int64_t padded(int64_t dimension) { return (dimension + BLOCK - 1) / BLOCK * BLOCK; }

  // Elements of memory: the matrix, whose rows would share few cache lines if they were a power of two apart, and the
  // inverses.
  static int64_t size(int64_t dimension) { return padded(dimension) * (padded(dimension) + 3 * BLOCK); }

  UnpivotedLu(int64_t dimension, Real* memory)
      : order(padded(dimension)),
        matrix{memory, order + BLOCK},
        lower_inverses(memory + order * matrix.stride),
        upper_inverses(lower_inverses + order * BLOCK) {}

  const int64_t order;
  const Matrix<Real> matrix;  // [order, order], to be filled in

  void factorise() { factorise(0, order); }

  // B [order, order] = A^-1.
  void invert(const Matrix<Real>& B) const {
    constexpr int64_t PANEL = 4 * BLOCK;
    for (int64_t i = 0; i < order; i++)
      for (int64_t j = 0; j < order; j++) B.part(i, j).data[0] = Real(i == j);
    for (int64_t first = 0; first < order; first += PANEL) {  // U^-1 is 0 below its diagonal
      const int64_t rows = order - first < PANEL ? order - first : PANEL;
      divide_by_upper(B.part(first, first), rows, first, order - first);
    }
    divide_by_lower(B, order, 0, order);
  }

  // Solves A x = b, b being in the place of x [order].
  void solve_column(Real* x) const {
    Real block[BLOCK];
    for (int64_t first = 0; first < order; first += BLOCK) {
      subtract_products(first, 0, first, x);
      multiply_block(lower_inverses + first * BLOCK, x + first, block);
      memcpy(x + first, block, sizeof block);
    }
    for (int64_t first = order - BLOCK; first >= 0; first -= BLOCK) {
      subtract_products(first, first + BLOCK, order, x);
      multiply_block(upper_inverses + first * BLOCK, x + first, block);
      memcpy(x + first, block, sizeof block);
    }
  }

  // Solves X A = B in place, for the rows of B [rows, order].
  void solve_rows(const Matrix<Real>& B, int64_t rows) const {
    divide_by_upper(B, rows, 0, order);
    divide_by_lower(B, rows, 0, order);
  }

 private:
  Real *lower_inverses, *upper_inverses;  // [order / BLOCK][BLOCK][BLOCK]

  // A row of a block, in registers.
  struct Row {
    static constexpr int L = Simd<Real>::lanes, VECTORS = BLOCK / L;
    typedef typename Simd<Real>::Integer Integer;
    VectorOf<Real> part[VECTORS];

    static __attribute__((always_inline)) MaskOf<Real> columns(int v) {
      MaskOf<Real> c;
#pragma GCC unroll 16
      for (int l = 0; l < L; l++) c[l] = v * L + l;
      return c;
    }
    explicit Row(const Real* data) {
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) part[v] = load(data + v * L);
    }
    explicit Row(int place) {  // of the identity
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) part[v] = keep(columns(v) == Integer(place), splat(Real(1)));
    }
    __attribute__((always_inline)) void clear_up_to(int place) {
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) part[v] = keep(columns(v) > Integer(place), part[v]);
    }
    __attribute__((always_inline)) void subtract(Real factor, const Row& row) {
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) part[v] -= row.part[v] * factor;
    }
    __attribute__((always_inline)) void divide(Real divisor) {
      const Real reciprocal = 1 / divisor;
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) part[v] *= reciprocal;
    }
    __attribute__((always_inline)) void write(Real* data) const {
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) store(data + v * L, part[v]);
    }
  };

  static int64_t half_of(int64_t n) { return n / 2 / BLOCK * BLOCK; }
  static LeftMatrix<Real> left(const Matrix<Real>& m) { return {m.data, m.stride, 1}; }
  static Matrix<const Real> right(const Matrix<Real>& m) { return {m.data, m.stride}; }

  // The square of n rows and columns from `first` on.
  void factorise(int64_t first, int64_t n) {
    if (n == BLOCK) return factorise_block(first);
    const int64_t h = half_of(n), middle = first + h, rest = n - h;
    factorise(first, h);
    lower_divides(first, h, middle, rest);
    divide_by_upper(matrix.part(middle, first), rest, first, h);
    matrix_product<true>(left(matrix.part(middle, first)), right(matrix.part(first, middle)),
                         matrix.part(middle, middle), rest, h, rest);
    factorise(middle, rest);
  }

  CISS_LOOP void factorise_block(int64_t first) {
    Real block[BLOCK * BLOCK];  // a copy: the matrix's rows are far apart
    for (int i = 0; i < BLOCK; i++) Row(matrix.part(first + i, first).data).write(block + i * BLOCK);
    Real* const lower = lower_inverses + first * BLOCK;
    Real* const upper = upper_inverses + first * BLOCK;
    Row(0).write(lower);
    for (int p = 0; p < BLOCK; p++) {
      const Real reciprocal = 1 / block[p * BLOCK + p];
      Row pivot(block + p * BLOCK);
      pivot.clear_up_to(p);
      for (int i = p + 1; i < BLOCK; i++) {
        Row row(block + i * BLOCK);
        const Real factor = block[i * BLOCK + p] * reciprocal;
        row.subtract(factor, pivot);
        row.write(block + i * BLOCK);
        block[i * BLOCK + p] = factor;
      }
    }
    for (int i = 0; i < BLOCK; i++) Row(block + i * BLOCK).write(matrix.part(first + i, first).data);
    for (int i = 1; i < BLOCK; i++) {
      Row row(i);
      for (int k = 0; k < i; k++) row.subtract(block[i * BLOCK + k], Row(lower + k * BLOCK));
      row.write(lower + i * BLOCK);
    }
    for (int i = BLOCK - 1; i >= 0; i--) {
      Row row(i);
      for (int k = i + 1; k < BLOCK; k++) row.subtract(block[i * BLOCK + k], Row(upper + k * BLOCK));
      row.divide(block[i * BLOCK + i]);
      row.write(upper + i * BLOCK);
    }
  }

  // Rows [first, first + n), columns [column, column + columns) of the matrix: L^-1 of them.
  void lower_divides(int64_t first, int64_t n, int64_t column, int64_t columns) {
    if (n == BLOCK) {
      for (int64_t j = 0; j < columns; j += CHUNK) {
        const int64_t width = columns - j < CHUNK ? columns - j : CHUNK;
        const Matrix<Real> target = matrix.part(first, column + j);
        Real before[BLOCK * CHUNK];
        for (int i = 0; i < BLOCK; i++)
          memcpy(before + i * CHUNK, target.data + i * target.stride, size_t(width) * sizeof(Real));
        const LeftMatrix<Real> inverse{lower_inverses + first * BLOCK, BLOCK, 1};
        matrix_product<false, Real>(inverse, {before, CHUNK}, target, BLOCK, BLOCK, width);
      }
      return;
    }
    const int64_t h = half_of(n), middle = first + h;
    lower_divides(first, h, column, columns);
    matrix_product<true>(left(matrix.part(middle, first)), right(matrix.part(first, column)),
                         matrix.part(middle, column), n - h, h, columns);
    lower_divides(middle, n - h, column, columns);
  }

  // B = B U^-1 with the square of U from `first` on, B [rows, n].
  void divide_by_upper(const Matrix<Real>& B, int64_t rows, int64_t first, int64_t n) const {
    if (n == BLOCK) return multiply_in_place(B, rows, upper_inverses + first * BLOCK);
    const int64_t h = half_of(n);
    divide_by_upper(B, rows, first, h);
    matrix_product<true>(left(B), right(matrix.part(first, first + h)), B.part(0, h), rows, h, n - h);
    divide_by_upper(B.part(0, h), rows, first + h, n - h);
  }

  // B = B L^-1.
  void divide_by_lower(const Matrix<Real>& B, int64_t rows, int64_t first, int64_t n) const {
    if (n == BLOCK) return multiply_in_place(B, rows, lower_inverses + first * BLOCK);
    const int64_t h = half_of(n);
    divide_by_lower(B.part(0, h), rows, first + h, n - h);
    matrix_product<true>(left(B.part(0, h)), right(matrix.part(first + h, first)), B, rows, n - h, h);
    divide_by_lower(B, rows, first, h);
  }

  // From x's entries of the block at `first`: the products of the block's rows, from column `begin` to `end`, with x.
  void subtract_products(int64_t first, int64_t begin, int64_t end, Real* x) const {
    constexpr int L = Simd<Real>::lanes;
    for (int64_t row = first; row < first + BLOCK; row += L)
      store(x + row, load(x + row) - products_with_vector(matrix.part(row, begin), x + begin, end - begin));
  }

  static void multiply_block(Real* block, const Real* x, Real* out) {
    constexpr int L = Simd<Real>::lanes;
    for (int row = 0; row < BLOCK; row += L)
      store(out + row, products_with_vector(Matrix<Real>{block + row * BLOCK, BLOCK}, x, BLOCK));
  }

  // B [rows, BLOCK] = B times a block.
  static void multiply_in_place(const Matrix<Real>& B, int64_t rows, const Real* block) {
    for (int64_t first = 0; first < rows; first += CHUNK) {
      const int64_t count = rows - first < CHUNK ? rows - first : CHUNK;
      const Matrix<Real> target = B.part(first, 0);
      Real before[CHUNK * BLOCK];
      for (int64_t i = 0; i < count; i++)
        memcpy(before + i * BLOCK, target.data + i * target.stride, BLOCK * sizeof(Real));
      matrix_product<false, Real>({before, BLOCK, 1}, {block, BLOCK}, target, count, BLOCK, BLOCK);
    }
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
