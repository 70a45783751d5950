// Vectors of the width this translation unit is compiled for, and the few functions of them the kernels need.
//
// CISS_ISA names the namespace (baseline, avx2, avx512), CISS_VECTOR_BYTES the width. GCC and Clang vector types do
// the arithmetic; intrinsics are used where those compile badly. Files that include this one are compiled once per
// instruction set, so they must not instantiate templates of the standard library: the linker may keep any copy.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if !defined(CISS_ISA) || !defined(CISS_VECTOR_BYTES)
#error "CISS_ISA and CISS_VECTOR_BYTES are set by the build"
#endif

#define CISS_INLINE static inline __attribute__((always_inline))
// Loops of their own: kept apart for the register allocator and for profiles.
#define CISS_LOOP __attribute__((noinline))

namespace ciss {
namespace CISS_ISA {

typedef float Float __attribute__((vector_size(CISS_VECTOR_BYTES)));
typedef int32_t FloatMask __attribute__((vector_size(CISS_VECTOR_BYTES)));
typedef double Double __attribute__((vector_size(CISS_VECTOR_BYTES)));
typedef int64_t DoubleMask __attribute__((vector_size(CISS_VECTOR_BYTES)));

template <class Real>
struct Simd;
template <>
struct Simd<float> {
  typedef Float Vector;
  typedef FloatMask Mask;
  typedef int32_t Integer;
  static constexpr int lanes = CISS_VECTOR_BYTES / 4;
  static constexpr Integer exponent_bias = 127, mantissa_bits = 23;
  static constexpr float smallest_exponent = -126, lowest = -3.4028234e38f;
  static constexpr float rounding = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
};
template <>
struct Simd<double> {
  typedef Double Vector;
  typedef DoubleMask Mask;
  typedef int64_t Integer;
  static constexpr int lanes = CISS_VECTOR_BYTES / 8;
  static constexpr Integer exponent_bias = 1023, mantissa_bits = 52;
  static constexpr double smallest_exponent = -1022, lowest = -1.7976931348623157e308;
  static constexpr double rounding = 6755399441055744.0;  // 1.5 * 2^52
};

template <class Real>
using VectorOf = typename Simd<Real>::Vector;
template <class Real>
using MaskOf = typename Simd<Real>::Mask;

template <class Real>
CISS_INLINE VectorOf<Real> splat(Real x) {
  return x - VectorOf<Real>{};  // x - 0 is x, also for -0: the compiler drops the subtraction, unlike 0 + x
}
template <class Real>
CISS_INLINE VectorOf<Real> load(const Real* p) {
  VectorOf<Real> v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class Real>
CISS_INLINE void store(Real* p, VectorOf<Real> v) {
  memcpy(p, &v, sizeof v);
}

// Stores past the caches, to an aligned address: for results larger than they are, read by others much later.
template <class Real>
CISS_INLINE void stream(Real* p, VectorOf<Real> v) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif CISS_VECTOR_BYTES == 32 && defined(__AVX__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#elif defined(__SSE2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)v);
#else
  store(p, v);
#endif
}
CISS_INLINE void finish_streams() {  // other threads may read what was streamed
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// x where the mask is set, 0 elsewhere (also where x is not finite).
CISS_INLINE Float keep(FloatMask m, Float x) { return (Float)(m & (FloatMask)x); }
CISS_INLINE Double keep(DoubleMask m, Double x) { return (Double)(m & (DoubleMask)x); }
CISS_INLINE Float select(FloatMask m, Float a, Float b) { return m ? a : b; }
CISS_INLINE Double select(DoubleMask m, Double a, Double b) { return m ? a : b; }

// The larger one; `b` where either is not a number.
CISS_INLINE Float larger(Float a, Float b) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
  return (Float)_mm512_max_ps((__m512)a, (__m512)b);
#elif CISS_VECTOR_BYTES == 32 && defined(__AVX__)
  return (Float)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Float)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}
CISS_INLINE Double larger(Double a, Double b) { return a > b ? a : b; }

CISS_INLINE Float magnitude(Float x) { return (Float)((FloatMask)x & 0x7fffffff); }

template <class Vector>
CISS_INLINE auto largest_lane(Vector v) -> decltype(v[0] + v[0]) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
  if (sizeof v[0] == 4) return _mm512_reduce_max_ps((__m512)v);
#endif
  auto largest = v[0];
  for (unsigned i = 1; i < sizeof v / sizeof v[0]; i++) largest = largest > v[i] ? largest : v[i];
  return largest;
}

template <class Mask>
CISS_INLINE bool any(Mask m) {
  uint64_t words[sizeof(Mask) / 8], all = 0;
  memcpy(words, &m, sizeof m);
  for (uint64_t w : words) all |= w;
  return all != 0;
}

template <class Vector>
CISS_INLINE double sum_of_lanes(Vector v) {
  constexpr unsigned LANES = sizeof v / sizeof v[0], CHAINS = LANES < 4 ? LANES : 4;
  double sums[4] = {};  // few of the additions wait for one another
  for (unsigned i = 0; i < LANES; i += CHAINS)
    for (unsigned k = 0; k < CHAINS; k++) sums[k] += double(v[i + k]);
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// 2^f for |f| <= 1/2.
CISS_INLINE Float exp2_fraction(Float f) {  // minimax, relative error 1e-8
  Float p = splat(1.535336188e-4f);
  p = p * f + 1.339887440e-3f;
  p = p * f + 9.618437357e-3f;
  p = p * f + 5.550332548e-2f;
  p = p * f + 2.402264791e-1f;
  p = p * f + 6.931472028e-1f;
  return p * f + 1.f;
}
CISS_INLINE Double exp2_fraction(Double f) {  // Taylor, relative error 1e-16
  Double term = splat(1.0), sum = term;
  for (int k = 1; k <= 14; k++) {
    term = term * f * (0.69314718055994530942 / k);
    sum += term;
  }
  return sum;
}

// 2^x for x within the normal exponents.
template <class Real>
CISS_INLINE VectorOf<Real> exp2_in_range(VectorOf<Real> x) {
  typedef Simd<Real> S;
  const VectorOf<Real> shifted = x + S::rounding;
  const VectorOf<Real> fraction = x - (shifted - S::rounding);
  return (VectorOf<Real>)((MaskOf<Real>)exp2_fraction(fraction) + ((MaskOf<Real>)shifted << S::mantissa_bits));
}

// 2^x for x <= 127; below the smallest normal exponent the result is that of the smallest one.
template <class Real>
CISS_INLINE VectorOf<Real> exp2(VectorOf<Real> x) {
  return exp2_in_range<Real>(larger(x, splat(Simd<Real>::smallest_exponent)));
}

// x = mantissa 2^exponent with 1 <= mantissa < 2, for x > 0.
template <class Real>
CISS_INLINE void split_exponent(VectorOf<Real> x, VectorOf<Real>& mantissa, MaskOf<Real>& exponent) {
  typedef Simd<Real> S;
  const MaskOf<Real> bits = (MaskOf<Real>)x;
  const typename S::Integer mantissa_mask = (typename S::Integer(1) << S::mantissa_bits) - 1;
  mantissa = (VectorOf<Real>)((bits & mantissa_mask) | (S::exponent_bias << S::mantissa_bits));
  exponent = (bits >> S::mantissa_bits) - S::exponent_bias;
}

// log2 of x > 0: with k = (m - 1)/(m + 1), log2 m = 2/ln 2 (k + k^3/3 + k^5/5 + ...).
template <class Real>
CISS_INLINE VectorOf<Real> log2(VectorOf<Real> x) {
  VectorOf<Real> m;
  MaskOf<Real> whole;
  split_exponent<Real>(x, m, whole);
  VectorOf<Real> exponent = __builtin_convertvector(whole, VectorOf<Real>);
  const MaskOf<Real> high = m > Real(1.41421356);
  m = select(high, m * Real(0.5), m);
  exponent = select(high, exponent + Real(1), exponent);
  const VectorOf<Real> k = (m - Real(1)) / (m + Real(1)), square = k * k;
  constexpr int terms = sizeof(Real) == 4 ? 5 : 10;
  VectorOf<Real> series = splat(Real(1.0 / (2 * terms + 1)));
  for (int i = terms - 1; i >= 0; i--) series = series * square + Real(1.0 / (2 * i + 1));
  return exponent + k * series * Real(2.8853900817779268);
}

CISS_INLINE Float reciprocal(Float x) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512F__)
  const Float r = (Float)_mm512_rcp14_ps((__m512)x);
  return r * (2.f - x * r);  // one Newton step: relative error 1e-8
#else
  return 1.f / x;
#endif
}
CISS_INLINE Double reciprocal(Double x) { return 1.0 / x; }

// Sum of log2 of many positive numbers at the price of a multiplication each: mantissas are multiplied (at most 100
// times between two calls of `renormalise`), exponents added.
template <class Real>
struct LogProduct {
  VectorOf<Real> mantissas = splat(Real(1));
  MaskOf<Real> exponents{};

  __attribute__((always_inline)) void add(MaskOf<Real> where, VectorOf<Real> x) {
    VectorOf<Real> mantissa;
    MaskOf<Real> exponent;
    split_exponent<Real>(x, mantissa, exponent);
    mantissas *= select(where, mantissa, splat(Real(1)));
    exponents += where & exponent;
  }
  __attribute__((always_inline)) void renormalise() {
    MaskOf<Real> exponent;
    split_exponent<Real>(mantissas, mantissas, exponent);
    exponents += exponent;
  }
  double total() const { return sum_of_lanes(exponents) + sum_of_lanes(log2<Real>(mantissas)); }
};

// One bit of each of 64 bytes, the first byte's lowest.
CISS_INLINE uint64_t collect_bits(const uint8_t* bytes, int bit) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512BW__)
  return _mm512_test_epi8_mask(_mm512_loadu_si512(bytes), _mm512_set1_epi8(char(1 << bit)));
#else
  uint64_t bits = 0;
  for (int i = 0; i < 64; i += 8) {
    uint64_t eight;
    memcpy(&eight, bytes + i, 8);
    bits |= (((eight >> bit) & 0x0101010101010101u) * 0x0102040810204080u >> 56) << i;
  }
  return bits;
#endif
}

// Flushes denormal numbers to zero while it lives: they carry nothing here and cost hundreds of cycles each.
struct FlushDenormals {
#if defined(__x86_64__)
  unsigned before;
  FlushDenormals() : before(_mm_getcsr()) { _mm_setcsr(before | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before); }
#endif
};

}  // namespace CISS_ISA
}  // namespace ciss
