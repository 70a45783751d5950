// The kernels of cayley_rotate: classes whose iterations converge, those that take an elimination, the gradient.
#pragma once

#include "cayley_elimination.cuh"
#include "cayley_krylov.cuh"

namespace ciss {
namespace cuda {

// Blocks: classes x chunks of right sides, along x: there may be more chunks than blocks along y. products
// [classes, chunks]: what the solutions took, -1: not solved.
template <bool SHARED>
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS, 1) cayley_krylov_kernel(CISS_CONSTANT CayleyTask task, int64_t chunk,
                                                                   int64_t chunks, int32_t* products) {
  CISS_SHARED_MEMORY(memory);
  const int64_t item = int64_t(blockIdx.x) / chunks, first = int64_t(blockIdx.x) % chunks * chunk;
  const int64_t end = first + chunk < task.vectors ? first + chunk : task.vectors;
  CayleySolver<SHARED> solver(task, item, memory);
  int taken = 0;
  for (int64_t i = first; i < end && taken >= 0; i++) {
    const int64_t offset = (item * task.vectors + i) * task.dimension;
    const float* const right_side = task.right_sides + offset;
    float* const solution = task.solutions + offset;
    if (solver.solve(task.sign, right_side, solution)) {
      taken += solver.products;
      for (int k = int(threadIdx.x); k < task.dimension; k += CAYLEY_THREADS)
        task.rotated[offset + k] = 2 * solution[k] - right_side[k];
    } else {
      taken = -1;
    }
  }
  if (threadIdx.x == 0) products[blockIdx.x] = taken;
  if (taken < 0 || !task.grad_params || chunks > 1) return;
  write_cayley_gradient(task, item, true);
}

// Whether a class's results are as accurate as wanted; where they are not they are NaN. A warp takes a vector.
CISS_DEVICE bool eliminate_class(const CayleyTask& task, int64_t item, double* matrix, unsigned char* memory) {
  const int thread = int(threadIdx.x), lane = thread % WARP;
  const int64_t first = item * task.vectors * task.dimension, count = task.vectors * task.dimension;
  CayleyElimination elimination(task, item, matrix, memory);
  const bool finite = elimination.factorise();
  bool failed = false;
  if (finite)
    for (int64_t i = thread / WARP; i < task.vectors; i += CAYLEY_WARPS) {
      const int64_t offset = first + i * task.dimension;
      if (!(elimination.solve(false, task.right_sides + offset, task.solutions + offset) <= CAYLEY_ACCEPTED))
        failed = true;
      for (int64_t k = lane; k < task.dimension; k += WARP)
        task.rotated[offset + k] = 2 * task.solutions[offset + k] - task.right_sides[offset + k];
    }
  // NaN where one of the warps' vectors is not solved.
  const bool solved = block_sum(failed ? 1. : 0., elimination.scratch) == 0;
  if (!finite || !solved)
    for (int64_t i = thread; i < count; i += CAYLEY_THREADS)
      task.rotated[first + i] = task.solutions[first + i] = not_a_number();
  __syncthreads();
  if (task.grad_params) write_cayley_gradient(task, item, finite && solved);
  __syncthreads();  // the next class uses the same memory
  return solved;
}

// Every block takes the classes with its number, plus the number of blocks, and so on. products [classes, chunks]: what
// the iterations took.
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS, 1) cayley_elimination_kernel(CISS_CONSTANT CayleyTask task, int64_t chunks,
                                                                        const int32_t* products, double* matrices) {
  CISS_SHARED_MEMORY(memory);
  double* const matrix = matrices + int64_t(blockIdx.x) * task.dimension * task.dimension;
  for (int64_t item = blockIdx.x; item < task.classes; item += gridDim.x) {
    int64_t sum = 0;
    bool failed = false;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
      const int taken = products[item * chunks + chunk];
      failed |= taken < 0;
      sum += taken;
    }
    if (failed) sum = eliminate_class(task, item, matrix, memory) ? SOLVED_DIRECTLY : NOT_SOLVED;
    if (threadIdx.x == 0) task.iterations[item] = int32_t(sum < INT32_MAX ? sum : INT32_MAX);
  }
}

// For classes with more vectors than a block of the iterations takes, once all are solved: sums over the vectors. A NaN in
// the solutions is one in the gradient.
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS, 1) cayley_gradient_kernel(CISS_CONSTANT CayleyTask task) {
  write_cayley_gradient(task, blockIdx.x, true);
}

}  // namespace cuda
}  // namespace ciss
