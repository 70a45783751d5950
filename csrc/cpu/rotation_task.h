// Fitting rotations: the work items of `rotation_loss` (one a class), and the kernel table for them.
#pragma once

#include "cayley_task.h"

namespace ciss {

// With b and t the previous and current prototypes, each minus its mean over the classes, o the mean of the current
// ones and r = R b: the terms are 1 - cos(r, t) and the cross entropy of weight (r + o) + bias against the class. All
// arrays are dense, row-major and of the kernel's type (float or double) unless said otherwise.
struct RotationTask {
  // Of it are used: classes, vectors (groups of images, each with prototypes of its own), dimension, params,
  // grad_params (null: no gradient).
  CayleyTask rotations;
  int64_t outputs = 0;                             // of the classifier
  const void *previous = nullptr, *current = nullptr;  // [classes, groups, dimension]
  const void *weight = nullptr, *bias = nullptr;       // [outputs, dimension], [outputs]
  double fidelity_weight = 1;
  void* means = nullptr;    // [2, groups, dimension]: room for the means
  double* terms = nullptr;  // [classes, 2]: a class's two terms, summed over its groups

  int64_t groups() const { return rotations.vectors; }
};

struct RotationKernels {
  // Bytes of scratch memory that `run` needs.
  size_t (*workspace_bytes)(const RotationTask&, bool double_precision);
  // Writes the means: first of all.
  void (*prepare)(const RotationTask&, bool double_precision);
  // A class's terms and its gradient. `products`: with S, in all; -1 where the class was solved directly. Returns how far
  // solutions are off at most, relative to their right sides' norm.
  double (*run)(const RotationTask&, int64_t item, bool double_precision, int32_t* products, void* workspace);
  // What must be reached.
  double (*accepted_error)(bool double_precision);
};

}  // namespace ciss
