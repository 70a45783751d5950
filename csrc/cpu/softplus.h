// Sigmoid and softplus of vectors, accurate relatively wherever they are small; compiled once per instruction set.
//
// Everything is built from e = 2^-|z|, which never overflows: sigmoid(|z|) = 1/(1 + e), sigmoid(-|z|) = e/(1 + e),
// log2(1 + 2^z) = max(z, 0) + log2(1 + e). z is in units of log 2, that is the logit times log2(e).
// Relative errors: single precision 5e-7 at most, and what the rounding of z does to 2^-|z|; double precision 1e-15.
#pragma once

#include "../core/sigmoid_sums.h"
#include "simd.h"

namespace ciss {
namespace CISS_ISA {

// 2^t for t <= 0, -infinity included. Below the smallest normal number the result is some number from 0 to that.
CISS_INLINE Float exp2_of_negative(Float t) {
#if CISS_VECTOR_BYTES == 64 && defined(__AVX512DQ__)
  const Float f = (Float)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // t - floor(t)
  Float p = splat(1.8756279e-3f);  // 2^f on [0, 1], minimax, relative error 8e-8
  p = p * f + 8.9945579e-3f;
  p = p * f + 5.58212847e-2f;
  p = p * f + 2.40155712e-1f;
  p = p * f + 6.93152726e-1f;
  p = p * f + 9.9999994e-1f;
  return (Float)_mm512_scalef_ps((__m512)p, (__m512)t);  // p 2^floor(t)
#else
  const Float in_range = larger(t, splat(Simd<float>::smallest_exponent));
  const Float shifted = in_range + Simd<float>::rounding;
  const Float f = in_range - (shifted - Simd<float>::rounding);
  Float p = splat(1.36413472e-3f);  // 2^f on [-1/2, 1/2], minimax, relative error 1.5e-7
  p = p * f + 9.68507212e-3f;
  p = p * f + 5.54975308e-2f;
  p = p * f + 2.40219191e-1f;
  p = p * f + 6.93147421e-1f;
  p = p * f + 1.00000012f;
  return (Float)((FloatMask)p + ((FloatMask)shifted << 23));
#endif
}
CISS_INLINE Double exp2_of_negative(Double t) { return exp2<double>(t); }

// log2(1 + e) / e for 0 <= e <= 1.
CISS_INLINE Float log2_1p_quotient(Float e) { return log2_1p_quotient_of(e); }
CISS_INLINE Double log2_1p_quotient(Double e) {  // log(1 + e) = 2 (k + k^3/3 + k^5/5 + ...) with k = e/(2 + e) <= 1/3
  const Double r = 1.0 / (2.0 + e), k = e * r, square = k * k;
  constexpr int terms = 15;
  Double series = splat(1.0 / (2 * terms + 1));
  for (int i = terms - 1; i >= 0; i--) series = series * square + 1.0 / (2 * i + 1);
  return r * series * 2.8853900817779268;
}

CISS_INLINE Float minus_magnitude(Float z) { return (Float)((FloatMask)z | INT32_MIN); }
CISS_INLINE Double minus_magnitude(Double z) { return (Double)((DoubleMask)z | INT64_MIN); }

// The sign bits where the mask is set.
template <class Mask>
CISS_INLINE Mask sign_bit(Mask where) {
  typedef decltype(where[0] + where[0]) Integer;
  return where & (Mask{} + Integer(uint64_t(1) << (8 * sizeof where[0] - 1)));
}
// x with its sign turned round where `sign` is set, which holds nothing but sign bits.
CISS_INLINE Float turned(Float x, FloatMask sign) { return (Float)((FloatMask)x ^ sign); }
CISS_INLINE Double turned(Double x, DoubleMask sign) { return (Double)((DoubleMask)x ^ sign); }

// a where z < 0, else 1.
template <class Real>
CISS_INLINE VectorOf<Real> where_negative(VectorOf<Real> z, VectorOf<Real> a) {
  return select(z < Real(0), a, splat(Real(1)));
}

// sigmoid = 1/(1 + 2^-z) and softplus = log2(1 + 2^z), both accurate relatively for z >= -120; below, they are some
// number from 0 to 2^-120. z up to the largest number, infinity included. Where z is not a number softplus is none.
// Vector operations in single precision: 23 with AVX-512, 27 with AVX2 (a division among them).
template <class Real>
CISS_INLINE void sigmoid_parts(VectorOf<Real> z, VectorOf<Real>& sigmoid, VectorOf<Real>& softplus) {
  const VectorOf<Real> e = exp2_of_negative(minus_magnitude(z));
  sigmoid = where_negative<Real>(z, e) * reciprocal(e + Real(1));
  softplus = e * log2_1p_quotient(e) + larger(splat(Real(0)), z);  // in this order: `larger` keeps what is no number
}

}  // namespace CISS_ISA
}  // namespace ciss
