// U - U^T, of which only the triangle above the diagonal is kept, in tiles of vectors, and its product with a vector;
// compiled once per instruction set (see simd.h).
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

// Tiles are a vector wide and half as high: the rows' factors and sums then stay in registers. Two rows of tiles make a
// band of the matrix; both begin with the tile at the diagonal and end at the right edge, as if the band were one.
template <class Real>
class SkewTiles {
 public:
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes, HEIGHT = L / 2;

  // Vectors have to have this many elements, those beyond `dimension` being 0.
  static int64_t padded(int64_t dimension) { return (dimension + L - 1) / L * L; }

  SkewTiles(int64_t dimension, Scratch& scratch)
      : dimension(dimension), tiles(scratch.take<Real>(padded(dimension) * (padded(dimension) + L) / 2)) {}

  // `upper`: U's rows above the diagonal, one after the other, as `torch.triu_indices(D, D, 1)` counts them.
  CISS_LOOP void pack(const Real* upper) {
    const int64_t inner = dimension / L * L;  // columns from here on do not fill a tile
    for (int64_t row = 0; row < padded(dimension); row++) {
      const int64_t first = row / L * L;
      Real* out = tiles + start_of_band(row / L);
      if (row % L >= HEIGHT) out += (padded(dimension) - first) * HEIGHT;
      out += row % HEIGHT * L;
      if (row >= dimension) {  // only in the last band, which is a single tile wide
        store(out, V{});
        continue;
      }
      copy_part(upper - row - 1, row, first, out);
      out += HEIGHT * L;
      for (int64_t column = first + L; column < inner; column += L, out += HEIGHT * L)
        store(out, load(upper + (column - row - 1)));
      if (first < inner && inner < dimension) copy_part(upper - row - 1, row, inner, out);
      upper += dimension - row - 1;
    }
  }

  // y = (U - U^T) x. A tile t of rows I and columns J serves twice: y_I += t x_J and y_J -= t^T x_I. The second is a
  // vertical multiply-add per row; for the first the lanes are summed up once per band. Products one after the other
  // should go `upwards` by turns: what the one reads last is in the first-level cache for the next.
  CISS_LOOP void multiply(const Real* x, Real* y, bool upwards) const {
    const int64_t bands = padded(dimension) / L;
    for (int64_t i = 0; i < dimension; i += L) store(y + i, V{});
    for (int64_t k = 0; k < bands; k++) {
      const int64_t band = upwards ? bands - 1 - k : k, row = band * L;
      const Real* t = tiles + start_of_band(band);
      V sums[L];
#pragma GCC unroll 2
      for (int64_t half = 0; half < L; half += HEIGHT) {
        V factors[HEIGHT], row_sums[HEIGHT];
#pragma GCC unroll 8
        for (int i = 0; i < HEIGHT; i++) {
          factors[i] = in_register(splat(x[row + half + i]));
          row_sums[i] = V{};
        }
        for (int64_t column = row; column < dimension; column += L, t += HEIGHT * L) {
          const V x_column = load(x + column);
          V even = load(y + column), odd{};  // so that half as many additions wait for one another
#pragma GCC unroll 8
          for (int i = 0; i < HEIGHT; i++) {
            const V entries = in_register(load(t + i * L));
            row_sums[i] += entries * x_column;
            V& column_sum = i % 2 ? odd : even;
            column_sum -= entries * factors[i];
          }
          store(y + column, even + odd);
        }
#pragma GCC unroll 8
        for (int i = 0; i < HEIGHT; i++) sums[half + i] = row_sums[i];
      }
      store(y + row, load(y + row) + sums_of_rows<Real>(sums));
    }
  }

 private:
  int64_t dimension;
  Real* tiles;

  int64_t start_of_band(int64_t band) const { return band * (2 * padded(dimension) - (band - 1) * L) / 2 * L; }

  // A row of a tile of which only some entries exist: those right of the diagonal.
  void copy_part(const Real* entries, int64_t row, int64_t column, Real* out) const {
    for (int64_t j = column; j < column + L; j++) out[j - column] = j > row && j < dimension ? entries[j] : Real(0);
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
