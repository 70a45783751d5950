// The loss that rotations are fitted with, and its gradient, on a GPU: everything is launched on a stream, nothing waits.
#pragma once

#include "cayley_rotate.h"

namespace ciss {
namespace cuda {

// With b and t the previous and current prototypes, each minus its mean over the classes, o the mean of the current
// ones and r = R b: the terms are 1 - cos(r, t) and the cross entropy of weight (r + o) + bias against the class. All
// arrays are dense and row-major, in device memory.
struct RotationTask {
  // Of it the caller sets: classes, vectors (groups of images, each with prototypes of its own), dimension, params,
  // grad_params (null: no gradient), iterations (products with S of both passes).
  CayleyTask rotations;
  int64_t outputs = 0;                                     // of the classifier
  const float *previous = nullptr, *current = nullptr;     // [classes, groups, dimension]
  const float *weight = nullptr, *bias = nullptr;          // [outputs, dimension], [outputs]
  double fidelity_weight = 1;
  float *total = nullptr, *values = nullptr;               // the loss; its two terms
  float* means = nullptr;    // workspace [2, groups, dimension]
  double* terms = nullptr;   // workspace [classes, 2]: a class's two terms, summed over its groups
};

// There has to be at least one class, group, dimension and output.
size_t rotation_workspace_bytes(const RotationTask& task);
void rotation_loss(const RotationTask& task, void* workspace, void* stream);

}  // namespace cuda
}  // namespace ciss
