// U - U^T, of which only the triangle above the diagonal is kept, in square tiles of vectors, and its product with a
// vector; compiled once per instruction set (see simd.h).
#pragma once

#include "interleave.h"
#include "scratch.h"

namespace ciss {
namespace CISS_ISA {

// A value that compilers may not load a second time where it is used twice.
template <class Vector>
CISS_INLINE Vector in_register(Vector x) {
#if defined(__x86_64__)
  __asm__("" : "+v"(x));
#endif
  return x;
}

// Row by row of tiles, from the one on the diagonal to the right edge.
template <class Real>
class SkewTiles {
 public:
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes;

  // Vectors have to have this many elements, those beyond `dimension` being 0.
  static int64_t padded(int64_t dimension) { return (dimension + L - 1) / L * L; }

  SkewTiles(int64_t dimension, Scratch& scratch)
      : dimension(dimension), tiles(scratch.take<Real>(padded(dimension) * (padded(dimension) + L) / 2)) {}

  // `upper`: U's rows above the diagonal, one after the other, as `torch.triu_indices(D, D, 1)` counts them.
  CISS_LOOP void pack(const Real* upper) {
    const int64_t inner = dimension / L * L;  // columns from here on do not fill a tile
    Real* memory = tiles;
    for (int64_t row = 0; row < dimension; row++) {
      const int64_t first = row / L * L;
      Real* out = memory + row % L * L;
      copy_part(upper - row - 1, row, first, out);
      out += L * L;
      for (int64_t column = first + L; column < inner; column += L, out += L * L)
        store(out, load(upper + (column - row - 1)));
      if (first < inner && inner < dimension) copy_part(upper - row - 1, row, inner, out);
      upper += dimension - row - 1;
      if (row % L == L - 1) memory += (padded(dimension) - first) * L;
    }
    for (int64_t row = dimension; row < padded(dimension); row++)  // of the last tile
      store(memory + row % L * L, V{});
  }

  // y = (U - U^T) x. A tile t of rows I and columns J serves twice: y_I += t x_J and y_J -= t^T x_I. The second is a
  // vertical multiply-add per row; for the first the lanes are summed up once per row of tiles.
  CISS_LOOP void multiply(const Real* x, Real* y) const {
    for (int64_t i = 0; i < dimension; i += L) store(y + i, V{});
    const Real* t = tiles;
    for (int64_t row = 0; row < dimension; row += L) {
      V sums[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; i++) sums[i] = V{};
      for (int64_t column = row; column < dimension; column += L, t += L * L) {
        const V x_column = load(x + column);
        V y_column = load(y + column);
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) {
          const V entries = in_register(load(t + i * L));
          sums[i] += entries * x_column;
          y_column -= entries * x[row + i];
        }
        store(y + column, y_column);
      }
      store(y + row, load(y + row) + sums_of_rows<Real>(sums));
    }
  }

 private:
  int64_t dimension;
  Real* tiles;

  // A row of a tile of which only some entries exist: those right of the diagonal.
  void copy_part(const Real* entries, int64_t row, int64_t column, Real* out) const {
    for (int64_t j = column; j < column + L; j++) out[j - column] = j > row && j < dimension ? entries[j] : Real(0);
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
