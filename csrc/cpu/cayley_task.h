// Vectors rotated by Cayley transforms: the work items of `cayley_rotate` (one a class), and the kernel table for them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ciss {

// Solves (I + sign S) x = b for every class and every right side of it, S = (U - U^T) / 2. All arrays are dense,
// row-major and of the kernel's type (float or double).
struct CayleyTask {
  int64_t classes = 0, vectors = 0, dimension = 0;  // vectors: right sides of a class
  const void* params = nullptr;                     // [classes, dimension (dimension - 1) / 2]: U row by row
  const void* right_sides = nullptr;                // b [classes, vectors, dimension]
  int sign = 1;
  void* rotated = nullptr;    // 2 x - b
  void* solutions = nullptr;  // x; null where not wanted
  // For the gradient on U of a scalar whose adjoint the right sides are, with y the solutions of the forward pass:
  // the sum over the vectors of y_i x_j - x_i y_j. Null where not wanted.
  const void* forward_solutions = nullptr;
  void* grad_params = nullptr;

  // Factors of classes with few vectors that were solved directly, for the backward pass: one slot after the other, in
  // the order of the classes. Null where they are not kept. `factors_ready`: they come from the forward pass.
  void* factors = nullptr;
  bool factors_ready = false;

  // Few vectors are solved for one by one, many together.
  bool few() const { return vectors <= 8; }
  int64_t param_count() const { return dimension * (dimension - 1) / 2; }
};

struct CayleyKernels {
  // Bytes of scratch memory that `iterate` and `eliminate` need.
  size_t (*workspace_bytes)(const CayleyTask&, bool double_precision);
  // For tasks with few vectors. Returns the number of products with S; -1 where they would be too many or a parameter is
  // not finite: then `eliminate` has to do it.
  int (*iterate)(const CayleyTask&, int64_t item, bool double_precision, void* workspace);
  // Bytes of a slot of factors.
  size_t (*slot_bytes)(const CayleyTask&, bool double_precision);
  // `slot`: this class's, or null. Always writes. Returns how far the solutions are off at most, relative to the right sides' norm; 0 where parameters
  // are not finite, which gives NaN.
  double (*eliminate)(const CayleyTask&, int64_t item, bool double_precision, void* slot, void* workspace);
  // What `eliminate` must reach.
  double (*accepted_error)(bool double_precision);
};

}  // namespace ciss
