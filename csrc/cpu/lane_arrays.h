// Lanes as plain arrays: kernels must not use the standard library (see simd.h).
#pragma once

#include <cstdint>

#include "../core/axis.h"

namespace ciss {

struct LaneArrays {
  int count = 0, run = 0;
  const int32_t *first_pixel = nullptr, *first_slot = nullptr, *length = nullptr, *left = nullptr, *right = nullptr;
  const double *centre = nullptr, *step = nullptr;
  int regular_begin = 0, regular_end = 0;  // see Lanes::find_regular

  LaneArrays() = default;
  explicit LaneArrays(const Lanes& lanes)
      : count(lanes.count()), run(lanes.run), first_pixel(lanes.first_pixel.data()),
        first_slot(lanes.first_slot.data()), length(lanes.length.data()), left(lanes.left.data()),
        right(lanes.right.data()), centre(lanes.centre.data()), step(lanes.step.data()),
        regular_begin(lanes.regular_begin), regular_end(lanes.regular_end) {}
};

}  // namespace ciss
