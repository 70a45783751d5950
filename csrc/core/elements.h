// Reading tensors of any supported element type: addresses, strides, conversion to the kernel's arithmetic.
#pragma once

#include <cstdint>
#include <cstring>

namespace ciss {

enum class FloatType : int32_t { float32 = 0, bfloat16 = 1, float16 = 2, float64 = 3 };
inline int64_t element_bytes(FloatType type) {
  return type == FloatType::float64 ? 8 : type == FloatType::float32 ? 4 : 2;
}
enum class LabelType : int32_t { uint8 = 0, int32 = 1, int64 = 2 };

// Logits [B, C, h, w]; strides in elements.
struct LogitsView {
  const void* data = nullptr;
  FloatType type = FloatType::float32;
  int64_t batch_stride = 0, class_stride = 0, row_stride = 0, column_stride = 0;
};

// Labels [B, H, W]; strides in elements.
struct LabelView {
  const void* data = nullptr;
  LabelType type = LabelType::int64;
  int64_t batch_stride = 0, row_stride = 0, column_stride = 0;
};

// Gradient [B, C, h, w], float or double like the kernel's arithmetic; strides in elements.
struct GradientView {
  void* data = nullptr;  // null: no gradient is wanted
  int64_t batch_stride = 0, class_stride = 0, row_stride = 0, column_stride = 0;
};

// Pixels of an image whose logits are at label size.
struct PixelRange {
  int64_t image = 0, first = 0, count = 0;  // pixels, numbered along rows
};

}  // namespace ciss
