// Element conversion; compiled once per instruction set (see simd.h).
#pragma once

#include "../core/elements.h"
#include "simd.h"

namespace ciss {
namespace CISS_ISA {

CISS_INLINE float from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

CISS_INLINE float to_float(float x) { return x; }
CISS_INLINE float to_float(BFloat16 x) { return from_bits(uint32_t(x.bits) << 16); }
CISS_INLINE float to_float(Float16 x) {
#if defined(__F16C__)
  return _cvtsh_ss(x.bits);
#else
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, exponent = (x.bits >> 10) & 31, mantissa = x.bits & 1023;
  if (exponent == 31) return from_bits(sign | 0x7f800000 | (mantissa << 13));
  if (exponent == 0) return (sign ? -1.f : 1.f) * float(mantissa) * 5.9604644775390625e-8f;
  return from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13));
#endif
}
CISS_INLINE double to_float(double x) { return x; }

// `count` elements, `stride` apart, times `scale`.
template <class Real, class Element>
CISS_INLINE void convert(Real* out, const Element* in, int64_t stride, int64_t count, Real scale) {
  if (stride == 1)
    for (int64_t i = 0; i < count; i++) out[i] = Real(to_float(in[i])) * scale;
  else
    for (int64_t i = 0; i < count; i++) out[i] = Real(to_float(in[i * stride])) * scale;
}

// Reads `count` elements from `offset` on, `stride` apart, of a float tensor.
template <class Real>
CISS_INLINE void read_elements(Real* out, const void* data, FloatType type, int64_t offset, int64_t stride,
                               int64_t count, Real scale) {
  switch (type) {
    case FloatType::float32:
      return convert(out, static_cast<const float*>(data) + offset, stride, count, scale);
    case FloatType::bfloat16:
      return convert(out, static_cast<const BFloat16*>(data) + offset, stride, count, scale);
    case FloatType::float16:
      return convert(out, static_cast<const Float16*>(data) + offset, stride, count, scale);
    case FloatType::float64:
      return convert(out, static_cast<const double*>(data) + offset, stride, count, scale);
  }
}
template <class Real>
CISS_INLINE void read_logits(Real* out, const LogitsView& view, int64_t offset, int64_t stride, int64_t count,
                             Real scale) {
  read_elements(out, view.data, view.type, offset, stride, count, scale);
}

CISS_INLINE int32_t to_label(uint8_t x) { return x; }
CISS_INLINE int32_t to_label(int32_t x) { return x; }
// What does not fit becomes a number that is no class, nor an ignore_index (see the checks in Python).
CISS_INLINE int32_t to_label(int64_t x) { return x == int64_t(int32_t(x)) ? int32_t(x) : INT32_MIN; }

template <class Element>
CISS_INLINE void convert_labels(int32_t* out, const Element* in, int64_t stride, int64_t count) {
  if (stride == 1)
    for (int64_t i = 0; i < count; i++) out[i] = to_label(in[i]);
  else
    for (int64_t i = 0; i < count; i++) out[i] = to_label(in[i * stride]);
}

CISS_INLINE void read_labels(int32_t* out, const LabelView& view, int64_t offset, int64_t count) {
  switch (view.type) {
    case LabelType::uint8:
      return convert_labels(out, static_cast<const uint8_t*>(view.data) + offset, view.column_stride, count);
    case LabelType::int32:
      return convert_labels(out, static_cast<const int32_t*>(view.data) + offset, view.column_stride, count);
    case LabelType::int64:
      return convert_labels(out, static_cast<const int64_t*>(view.data) + offset, view.column_stride, count);
  }
}

}  // namespace CISS_ISA
}  // namespace ciss
