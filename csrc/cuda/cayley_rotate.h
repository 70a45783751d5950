// Vectors rotated by Cayley transforms on a GPU: everything is launched on a stream, nothing waits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/host_device.h"

namespace ciss {
namespace cuda {

// Solves (I + sign S) x = b for every class and every right side of it, S = (U - U^T) / 2. All arrays are dense and
// row-major, in device memory.
struct CayleyTask {
  int64_t classes = 0, vectors = 0, dimension = 0;  // vectors: right sides of a class
  const float* params = nullptr;                    // [classes, dimension (dimension - 1) / 2]: U row by row
  const float* right_sides = nullptr;               // b [classes, vectors, dimension]
  int sign = 1;
  float* rotated = nullptr;    // 2 x - b
  float* solutions = nullptr;  // x
  // For the gradient on U of a scalar whose adjoint the right sides are, with y the solutions of the forward pass: the
  // sum over the vectors of y_i x_j - x_i y_j. Null where not wanted.
  const float* forward_solutions = nullptr;
  float* grad_params = nullptr;
  // [classes]: products with S; -1: solved by elimination; -2: not solved to the accuracy wanted, all NaN.
  int32_t* iterations = nullptr;

  CISS_HOST_DEVICE int64_t param_count() const { return dimension * (dimension - 1) / 2; }
};

// There has to be at least one class, vector and dimension.
size_t cayley_workspace_bytes(const CayleyTask& task);
void cayley_rotate(const CayleyTask& task, void* workspace, void* stream);

}  // namespace cuda
}  // namespace ciss
