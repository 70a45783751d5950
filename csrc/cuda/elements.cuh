// Reading tensors of any supported element type on the device.
#pragma once

#include "core/elements.h"
#include "platform.h"

namespace ciss {
namespace cuda {

CISS_DEVICE float read_float(const void* data, FloatType type, int64_t offset) {
  if (type == FloatType::float32) return static_cast<const float*>(data)[offset];
  const uint16_t bits = static_cast<const uint16_t*>(data)[offset];
  return type == FloatType::bfloat16 ? __uint_as_float(unsigned(bits) << 16) : half_to_float(bits);
}

CISS_DEVICE float read_logit(const LogitsView& view, int64_t image, int64_t channel, int64_t i, int64_t j) {
  return read_float(view.data, view.type,
                    image * view.batch_stride + channel * view.class_stride + i * view.row_stride +
                        j * view.column_stride);
}

constexpr int32_t NO_LABEL = INT32_MIN;  // of a number that does not fit; no ignore_index either (checked in Python)

CISS_DEVICE int32_t read_label(const LabelView& view, int64_t image, int64_t y, int64_t x) {
  const int64_t offset = image * view.batch_stride + y * view.row_stride + x * view.column_stride;
  if (view.type == LabelType::uint8) return static_cast<const uint8_t*>(view.data)[offset];
  if (view.type == LabelType::int32) return static_cast<const int32_t*>(view.data)[offset];
  const int64_t label = static_cast<const int64_t*>(view.data)[offset];
  return label == int64_t(int32_t(label)) ? int32_t(label) : NO_LABEL;
}

}  // namespace cuda
}  // namespace ciss
