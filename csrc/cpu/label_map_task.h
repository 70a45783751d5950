// Enlarge and take the largest class: the work items of `predict` and `confusion`, and the kernel table for them.
#pragma once

#include "../core/elements.h"
#include "lane_arrays.h"

namespace ciss {

struct LabelMapTask {
  int64_t classes = 0, height = 0, width = 0, label_height = 0, label_width = 0;
  LogitsView logits;
  // Sigmoid family: channel 0 is no class; background (0) wins where no other logit is above 0.
  bool background_is_zero = false;
  LaneArrays lanes;
  const double* bottom_weight = nullptr;  // [label_height]
  int64_t longest_strip = 0;              // rows
};

struct LabelMapKernels {
  size_t (*workspace_bytes)(const LabelMapTask&, bool double_precision);
  // Writes the largest class of every pixel of the strip to `classes` [rows, label_width].
  void (*strip)(const LabelMapTask&, int64_t image, const Strip&, bool double_precision, void* workspace,
                int32_t* classes);
  // Reads a label row (with clamping of what does not fit into 32 bits, see conversion.h).
  void (*read_labels)(const LabelView&, int64_t offset, int64_t count, int32_t* out);
};

}  // namespace ciss
