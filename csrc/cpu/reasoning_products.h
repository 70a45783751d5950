// Products of a matrix given as a list of elements with a tile; compiled once per instruction set (see simd.h).
//
// Pixels are lanes. A row of a tile is a few vectors; an element is broadcast and multiplied with a row where it lies,
// a block of rows being in the first-level cache.
#pragma once

#include "reasoning_task.h"
#include "simd.h"

namespace ciss {
namespace CISS_ISA {

constexpr int TILE_VECTORS = 8;

template <class Real>
struct TileRow {
  static constexpr int64_t pixels = TILE_VECTORS * Simd<Real>::lanes;
};

// out = matrix in: tiles [list.rows][pixels] from [..][pixels].
template <class Real>
CISS_LOOP void multiply(const ElementList<Real>& list, const Real* in, Real* out) {
  typedef VectorOf<Real> V;
  constexpr int L = Simd<Real>::lanes;
  constexpr int64_t N = TileRow<Real>::pixels;
  for (int64_t block = 0; block < list.blocks; block++) {
    const int64_t* begin = list.begin + block * (list.rows + 1);
    for (int64_t r = 0; r < list.rows; r++) {
      V sums[TILE_VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < TILE_VECTORS; v++) sums[v] = V{};
      const Element<Real>* const end = list.elements + begin[r + 1];
      for (const Element<Real>* e = list.elements + begin[r]; e < end; e++) {
        const V value = splat(e->value);
        const Real* row = in + e->row * N;
#pragma GCC unroll 8
        for (int v = 0; v < TILE_VECTORS; v++) sums[v] += value * load(row + v * L);
      }
      Real* target = out + r * N;
#pragma GCC unroll 8
      for (int v = 0; v < TILE_VECTORS; v++) store(target + v * L, block ? load(target + v * L) + sums[v] : sums[v]);
    }
  }
}

// Lane i of the result: the sum of the lanes of rows[i].
CISS_INLINE Float sums_of_rows(const Float rows[Simd<float>::lanes]) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
  __m512 t[8];
  for (int i = 0; i < 8; i++) {  // halves of t[i]: a row and the fourth one after it
    const int row = i / 4 * 8 + i % 2 * 2 + i % 4 / 2;
    const __m512 a = (__m512)rows[row], b = (__m512)rows[row + 4];
    t[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  for (int i = 0; i < 4; i++)  // quarters: every fourth row
    t[i] = _mm512_add_ps(_mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd));
  for (int i = 0; i < 2; i++)
    t[i] = _mm512_add_ps(_mm512_shuffle_ps(t[i], t[i + 2], 0x44), _mm512_shuffle_ps(t[i], t[i + 2], 0xee));
  return (Float)_mm512_add_ps(_mm512_shuffle_ps(t[0], t[1], 0x88), _mm512_shuffle_ps(t[0], t[1], 0xdd));
#elif CISS_VECTOR_BYTES == 32 && defined(__AVX2__)
  __m256 t[4];
  for (int i = 0; i < 4; i++) t[i] = _mm256_hadd_ps((__m256)rows[2 * i], (__m256)rows[2 * i + 1]);
  const __m256 low = _mm256_hadd_ps(t[0], t[1]), high = _mm256_hadd_ps(t[2], t[3]);
  return (Float)_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
#elif defined(__SSE2__)
  __m128 a = (__m128)rows[0], b = (__m128)rows[1], c = (__m128)rows[2], d = (__m128)rows[3];
  _MM_TRANSPOSE4_PS(a, b, c, d);
  return (Float)_mm_add_ps(_mm_add_ps(a, b), _mm_add_ps(c, d));
#else
  Float sums{};
  for (int i = 0; i < Simd<float>::lanes; i++) sums[i] = float(sum_of_lanes(rows[i]));
  return sums;
#endif
}
CISS_INLINE Double sums_of_rows(const Double rows[Simd<double>::lanes]) {
  Double sums{};
  for (int i = 0; i < Simd<double>::lanes; i++) sums[i] = sum_of_lanes(rows[i]);
  return sums;
}

// Adds to `sums`, one for every element of the list: the inner product of its row of the product, from `left`
// [list.rows][pixels], and of the row it is multiplied with, from `right`.
template <class Real>
CISS_LOOP void add_inner_products(const ElementList<Real>& list, const Real* left, const Real* right, Real* sums) {
  typedef VectorOf<Real> V;
  constexpr int L = Simd<Real>::lanes;
  constexpr int64_t N = TileRow<Real>::pixels;
  for (int64_t block = 0; block < list.blocks; block++) {
    const int64_t* begin = list.begin + block * (list.rows + 1);
    for (int64_t r = 0; r < list.rows; r++) {
      V factor[TILE_VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < TILE_VECTORS; v++) factor[v] = load(left + r * N + v * L);
      for (int64_t first = begin[r]; first < begin[r + 1]; first += L) {
        const int count = begin[r + 1] - first < L ? int(begin[r + 1] - first) : L;
        V products[L];
        for (int i = 0; i < count; i++) {
          const Real* row = right + list.elements[first + i].row * N;
          V even = factor[0] * load(row), odd = factor[1] * load(row + L);
#pragma GCC unroll 8
          for (int v = 2; v < TILE_VECTORS; v += 2) {
            even += factor[v] * load(row + v * L);
            odd += factor[v + 1] * load(row + (v + 1) * L);
          }
          products[i] = even + odd;
        }
        for (int i = count; i < L; i++) products[i] = V{};
        const V all = sums_of_rows(products);
        if (count == L) {
          store(sums + first, load(sums + first) + all);
          continue;
        }
        for (int i = 0; i < count; i++) sums[first + i] += all[i];
      }
    }
  }
}

}  // namespace CISS_ISA
}  // namespace ciss
