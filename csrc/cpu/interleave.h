// Shuffles of two vectors, and what is made of them; compiled once per instruction set (see simd.h).
#pragma once

#include "simd.h"

namespace ciss {
namespace CISS_ISA {

// Lanes of a and b in turn: a0 b0 a1 b1 ... from their lower halves; from their upper halves.
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
CISS_INLINE Float interleave_low(Float a, Float b) {
  const __m512i order = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (Float)_mm512_permutex2var_ps((__m512)a, order, (__m512)b);
}
CISS_INLINE Float interleave_high(Float a, Float b) {
  const __m512i order = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
  return (Float)_mm512_permutex2var_ps((__m512)a, order, (__m512)b);
}
CISS_INLINE Double interleave_low(Double a, Double b) {
  return (Double)_mm512_permutex2var_pd((__m512d)a, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), (__m512d)b);
}
CISS_INLINE Double interleave_high(Double a, Double b) {
  return (Double)_mm512_permutex2var_pd((__m512d)a, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4), (__m512d)b);
}
#elif CISS_VECTOR_BYTES == 32 && defined(__AVX__)
CISS_INLINE Float interleave_low(Float a, Float b) {
  const __m256 low = _mm256_unpacklo_ps((__m256)a, (__m256)b), high = _mm256_unpackhi_ps((__m256)a, (__m256)b);
  return (Float)_mm256_permute2f128_ps(low, high, 0x20);
}
CISS_INLINE Float interleave_high(Float a, Float b) {
  const __m256 low = _mm256_unpacklo_ps((__m256)a, (__m256)b), high = _mm256_unpackhi_ps((__m256)a, (__m256)b);
  return (Float)_mm256_permute2f128_ps(low, high, 0x31);
}
CISS_INLINE Double interleave_low(Double a, Double b) {
  const __m256d low = _mm256_unpacklo_pd((__m256d)a, (__m256d)b), high = _mm256_unpackhi_pd((__m256d)a, (__m256d)b);
  return (Double)_mm256_permute2f128_pd(low, high, 0x20);
}
CISS_INLINE Double interleave_high(Double a, Double b) {
  const __m256d low = _mm256_unpacklo_pd((__m256d)a, (__m256d)b), high = _mm256_unpackhi_pd((__m256d)a, (__m256d)b);
  return (Double)_mm256_permute2f128_pd(low, high, 0x31);
}
#elif defined(__SSE2__)
CISS_INLINE Float interleave_low(Float a, Float b) {
  return (Float)_mm_unpacklo_ps((__m128)a, (__m128)b);
}
CISS_INLINE Float interleave_high(Float a, Float b) {
  return (Float)_mm_unpackhi_ps((__m128)a, (__m128)b);
}
CISS_INLINE Double interleave_low(Double a, Double b) {
  return (Double)_mm_unpacklo_pd((__m128d)a, (__m128d)b);
}
CISS_INLINE Double interleave_high(Double a, Double b) {
  return (Double)_mm_unpackhi_pd((__m128d)a, (__m128d)b);
}
#else
template <class Vector>
CISS_INLINE Vector interleave_low(Vector a, Vector b) {
  Vector r;
  constexpr int half = sizeof a / sizeof a[0] / 2;
  for (int i = 0; i < half; i++) r[2 * i] = a[i], r[2 * i + 1] = b[i];
  return r;
}
template <class Vector>
CISS_INLINE Vector interleave_high(Vector a, Vector b) {
  Vector r;
  constexpr int half = sizeof a / sizeof a[0] / 2;
  for (int i = 0; i < half; i++) r[2 * i] = a[half + i], r[2 * i + 1] = b[half + i];
  return r;
}
#endif

// The sum of the lanes of rows[i] in lane i, for as many rows as lanes. Interleaving vectors i and i + half and adding
// the two results leaves half as many vectors; in the last one the rows are in order.
template <class Real>
CISS_INLINE VectorOf<Real> sums_of_rows(VectorOf<Real> (&rows)[Simd<Real>::lanes]) {
#pragma GCC unroll 4
  for (int half = Simd<Real>::lanes / 2; half >= 1; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; i++)
      rows[i] = interleave_low(rows[i], rows[i + half]) + interleave_high(rows[i], rows[i + half]);
  return rows[0];
}

// Transposes a square of vectors: log2(lanes) rounds of the perfect shuffle.
template <class Real>
CISS_INLINE void transpose(VectorOf<Real> (&rows)[Simd<Real>::lanes]) {
  constexpr int L = Simd<Real>::lanes;
#pragma GCC unroll 4
  for (int round = 1; round < L; round *= 2) {
    VectorOf<Real> shuffled[L];
#pragma GCC unroll 8
    for (int i = 0; i < L / 2; i++) {
      shuffled[2 * i] = interleave_low(rows[i], rows[i + L / 2]);
      shuffled[2 * i + 1] = interleave_high(rows[i], rows[i + L / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) rows[i] = shuffled[i];
  }
}

}  // namespace CISS_ISA
}  // namespace ciss
