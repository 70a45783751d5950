// The softmax loss cut into independent work items, and the table of kernels an instruction set provides for them.
//
// A band is a few consecutive strips of one image, a strip the label rows between two neighbouring logit rows.
// A tile range is a run of pixels of one image whose logits are already at label size. An item writes its own rows
// of the gradient, its own sums, and (bands) the part of the gradient that belongs to the next band's first row, so
// the result does not depend on the number of threads.
#pragma once

#include "../core/axis.h"
#include "../core/elements.h"
#include "../core/softmax_terms.h"
#include "lane_arrays.h"

namespace ciss {

struct SoftmaxTask {
  int64_t batch = 0, classes = 0, old_classes = 0, height = 0, width = 0, label_height = 0, label_width = 0;
  LogitsView student, teacher;  // teacher.data is null when no term needs it
  LabelView label;
  GradientView gradient;
  SoftmaxSettings settings;
  SoftmaxCoefficients coefficients;
  bool has_old_labels = false;  // some pixel is labelled with an old class

  LaneArrays lanes;
  const double* bottom_weight = nullptr;  // [label_height]
  int64_t longest_strip = 0;              // rows
  bool every_row_once = false;            // every source row's gradient is folded exactly once: it may be overwritten

  int64_t teacher_classes() const { return teacher.data ? old_classes : 0; }
};

struct SoftmaxBand {
  int64_t image = 0;
  const Strip* strips = nullptr;
  int64_t strip_count = 0;
  int64_t first_row = 0, end_row = 0;  // source rows this band answers for, those that no strip reads included
  void* shared_row = nullptr;  // [classes, width]: gradient of the last source row, if the next band starts with it
};

struct RegionCounts {
  int64_t pixels[REGION_COUNT] = {};
  int64_t invalid = 0;        // labels that are neither a class nor ignore_index
  int64_t first_invalid = 0;  // the first of them: its pixel in the image, numbered along rows
};

constexpr int32_t COMPACT_IGNORE = 255;

struct SoftmaxKernels {
  // Bytes of scratch memory one thread needs: for bands where the task has lanes, else for pixel ranges.
  size_t (*workspace_bytes)(const SoftmaxTask&, bool double_precision);
  // Counts label rows; with `compact` [batch, label_height, label_width] also writes their classes there as bytes,
  // COMPACT_IGNORE where ignored or invalid.
  void (*count_regions)(const SoftmaxTask&, int64_t image, int64_t first_row, int64_t rows, uint8_t* compact,
                        RegionCounts&);
  void (*band)(const SoftmaxTask&, const SoftmaxBand&, bool double_precision, void* workspace, double sums[SUM_COUNT]);
  void (*full_resolution)(const SoftmaxTask&, const PixelRange&, bool double_precision, void* workspace,
                          double sums[SUM_COUNT]);
};

}  // namespace ciss
