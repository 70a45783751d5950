// Class prototypes from a memory of features: the work items of `prototypes`, and the kernel table for them.
#pragma once

#include <cstddef>

#include "../core/elements.h"

namespace ciss {

// Vectors of a float tensor; strides in elements.
struct VectorsView {
  const void* data = nullptr;
  FloatType type = FloatType::float32;
  int64_t vector_stride = 0, element_stride = 0;
};

struct PrototypesTask {
  int64_t positions = 0, dimension = 0, classes = 0, per_class = 0;
  VectorsView feature_prev, feature_curr;  // [positions, dimension]
  VectorsView memory;                      // [classes, per_class, dimension]
  int64_t memory_class_stride = 0;
  double temperature = 1;
  // A work item is a block of positions with a group of classes.
  int64_t block_positions = 0, group_classes = 0;
  const void* inverse_lengths = nullptr;  // [classes, per_class] of the memory's vectors, float or double
};

struct PositionBlock {
  int64_t first = 0, count = 0;
};

// What a block of positions contributes to a class: exp(temperature v(p)) over exp(highest), and sums of features
// weighted by it. `highest` is NaN where a score is not finite.
struct PrototypePart {
  double highest = 0, weight = 0;
};

struct PrototypesKernels {
  int64_t (*panel_positions)(bool double_precision);  // a block's positions are a multiple of it
  size_t (*workspace_bytes)(const PrototypesTask&, bool double_precision);
  // Writes 1 / length of the vectors of a class to `out` [per_class] (float or double).
  void (*inverse_lengths)(const PrototypesTask&, int64_t c, bool double_precision, void* workspace, void* out);
  // parts: [classes]; sums: [classes][2][dimension] (float or double), of previous and current features.
  void (*block)(const PrototypesTask&, const PositionBlock&, int64_t first_class, int64_t classes,
                bool double_precision, void* workspace, PrototypePart* parts, void* sums);
};

}  // namespace ciss
