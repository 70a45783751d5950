// The kernels of rotation_loss, in the order of their launches.
#pragma once

#include "rotation_class.cuh"

namespace ciss {
namespace cuda {

constexpr int MEAN_THREADS = 256;

// Blocks: x: columns, a warp's width each; y: previous and current prototypes. A warp adds up every eighth class.
CISS_KERNEL __launch_bounds__(MEAN_THREADS) rotation_means_kernel(CISS_CONSTANT RotationTask task) {
  CISS_SHARED_MEMORY(memory);
  float* const sums = reinterpret_cast<float*>(memory);  // [warps, columns]
  constexpr int WARPS = MEAN_THREADS / WARP;
  const int lane = int(threadIdx.x) % WARP, warp = int(threadIdx.x) / WARP;
  const int64_t columns = task.rotations.vectors * task.rotations.dimension;
  const int64_t column = int64_t(blockIdx.x) * WARP + lane;
  const float* const rows = blockIdx.y == 0 ? task.previous : task.current;
  float sum = 0;
  if (column < columns)
    for (int64_t item = warp; item < task.rotations.classes; item += WARPS) sum += rows[item * columns + column];
  sums[warp * WARP + lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= columns) return;
  for (int i = 1; i < WARPS; i++) sum += sums[i * WARP + lane];
  task.means[blockIdx.y * columns + column] = sum / float(task.rotations.classes);
}

// A block a class. iterations: the products with S; -1: not solved.
template <bool SHARED>
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS, 1) rotation_krylov_kernel(CISS_CONSTANT RotationTask task) {
  CISS_SHARED_MEMORY(memory);
  const int64_t item = blockIdx.x;
  RotationClass one(task, item, memory);
  CayleySolver<SHARED> solver(task.rotations, item, memory + RotationClass::shared_bytes(task));
  const int products = one.run(solver);
  if (threadIdx.x == 0) task.rotations.iterations[item] = products;
}

// The classes that the iterations did not solve. Every block takes those with its number, plus the number of blocks, and so
// on.
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS, 1) rotation_elimination_kernel(CISS_CONSTANT RotationTask task,
                                                                             double* matrices) {
  CISS_SHARED_MEMORY(memory);
  const int64_t size = task.rotations.dimension;
  for (int64_t item = blockIdx.x; item < task.rotations.classes; item += gridDim.x) {
    if (task.rotations.iterations[item] >= 0) continue;
    RotationClass one(task, item, memory);
    EliminatingSolver solver(task.rotations, item, matrices + int64_t(blockIdx.x) * size * size,
                             memory + RotationClass::shared_bytes(task));
    one.run(solver);
    const bool accurate = solver.accurate();
    if (!accurate || !solver.parameters_are_finite()) one.write_not_a_number();
    if (threadIdx.x == 0) task.rotations.iterations[item] = accurate ? SOLVED_DIRECTLY : NOT_SOLVED;
    __syncthreads();  // the next class uses the same memory
  }
}

// One block: the loss and its terms.
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS) rotation_finish_kernel(CISS_CONSTANT RotationTask task) {
  CISS_SHARED_MEMORY(memory);
  double* const scratch = reinterpret_cast<double*>(memory);
  double fidelity = 0, regulariser = 0;
  for (int64_t item = threadIdx.x; item < task.rotations.classes; item += CAYLEY_THREADS) {
    fidelity += task.terms[2 * item];
    regulariser += task.terms[2 * item + 1];
  }
  const double count = double(task.rotations.classes) * double(task.rotations.vectors);
  fidelity = block_sum(fidelity, scratch) / count;
  regulariser = block_sum(regulariser, scratch) / count;
  if (threadIdx.x == 0) {
    task.total[0] = float(task.fidelity_weight * fidelity + (1 - task.fidelity_weight) * regulariser);
    task.values[0] = float(fidelity);
    task.values[1] = float(regulariser);
  }
}

}  // namespace cuda
}  // namespace ciss
