// The product that decides the time of `prototypes`: scores of a panel of positions from a few vectors of the memory.
//
// Positions are lanes and the vectors of the memory are broadcast, so ReLU and the sum over the memory are vertical:
// they happen in the registers that hold the products, which are never written. Packed is only the panel of
// positions; the memory is read where it lies.
#pragma once

#include "simd.h"

namespace ciss {
namespace CISS_ISA {

// Shape of a tile: vectors of positions and, beside them, vectors of the memory. Their products and a row of the
// panel fill the registers.
struct TileShape {
#if defined(__AVX512F__)  // 32 registers
  static constexpr int vectors = 2, rows = 12;
#elif defined(__aarch64__)  // 32, but no operand broadcast from memory
  static constexpr int vectors = 3, rows = 7;
#elif defined(__AVX2__)  // 16
  static constexpr int vectors = 2, rows = 6;
#else  // 16, and products need one of their own where there is no fused multiply-add
  static constexpr int vectors = 3, rows = 4;
#endif
};

typedef float HalfFloat __attribute__((vector_size(CISS_VECTOR_BYTES / 2)));

CISS_INLINE void add_to(double* out, Float x) {
  constexpr int half = Simd<double>::lanes;
  HalfFloat halves[2];
  memcpy(halves, &x, sizeof x);
  for (int i = 0; i < 2; i++)
    store(out + i * half, load(out + i * half) + __builtin_convertvector(halves[i], Double));
}
CISS_INLINE void add_to(double* out, Double x) { store(out, load(out) + x); }

// Adds sum_r ReLU(<panel's position, rows[r]>) inverse_lengths[r] to the score of every position of a panel.
// panel: [dimension][vectors * lanes]; rows: ROWS vectors, `row_stride` apart. Partial sums of the product are Real,
// the scores double: they add up thousands of terms, and softmax reacts to their absolute error.
template <int ROWS, class Real>
CISS_LOOP void add_scores(const Real* panel, const Real* rows, int64_t row_stride, int64_t dimension,
                          const Real* inverse_lengths, double* scores) {
  typedef VectorOf<Real> V;
  constexpr int L = Simd<Real>::lanes, VECTORS = TileShape::vectors;
  V products[ROWS][VECTORS];
  for (int r = 0; r < ROWS; r++)
    for (int v = 0; v < VECTORS; v++) products[r][v] = V{};
  for (int64_t d = 0; d < dimension; d++) {
    V positions[VECTORS];
    for (int v = 0; v < VECTORS; v++) positions[v] = load(panel + (d * VECTORS + v) * L);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
      const V element = splat(rows[r * row_stride + d]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) products[r][v] += element * positions[v];
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    V sums[4] = {};  // sums of sums: fewer roundings of large numbers than one after another
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) sums[r % 4] += larger(V{}, products[r][v]) * inverse_lengths[r];  // NaN stays
    add_to(scores + v * L, (sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
}

}  // namespace CISS_ISA
}  // namespace ciss
