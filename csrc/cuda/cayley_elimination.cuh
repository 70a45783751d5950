// Classes for which minimal residuals do not converge (a large S): elimination in double precision, a block a class, with
// the matrix in device memory. Not fast, but right; csrc/cpu/unpivoted_lu.h says why no pivots are needed.
#pragma once

#include "cayley_class.cuh"

namespace ciss {
namespace cuda {

constexpr int MOST_SLOTS = 64;  // classes that are worked on at a time, each with a matrix of its own

class CayleyElimination {
 public:
  static size_t shared_bytes(int64_t dimension) {
    return size_t(CAYLEY_WARPS * dimension) * 3 * sizeof(double) + (CAYLEY_WARPS + 1) * sizeof(double);
  }

  // matrix [dimension, dimension], column by column.
  CISS_DEVICE CayleyElimination(const CayleyTask& task, int64_t item, double* matrix, unsigned char* memory)
      : task(task), item(item), size(int(task.dimension)), thread(int(threadIdx.x)), lane(thread % WARP),
        warp(thread / WARP), triangle{task.params + item * task.param_count(), size}, matrix(matrix) {
    scratch = reinterpret_cast<double*>(memory);
    b = scratch + CAYLEY_WARPS + 1 + warp * 3 * size;
    x = b + size;
    correction = x + size;
  }

  // Whether the results are as accurate as wanted; where they are not they are NaN.
  CISS_DEVICE bool run() {
    float poison = 0;
    for (int64_t i = thread; i < task.param_count(); i += CAYLEY_THREADS) poison += triangle.entries[i] * 0;
    const bool finite = block_sum(double(poison), scratch) == 0;
    double worst = 0;
    if (finite) {
      factorise();
      for (int64_t i = warp; i < task.vectors; i += CAYLEY_WARPS) {
        const double error = solve(i);
        worst = error <= worst ? worst : error;
      }
    }
    // NaN where one of the warps' vectors is not solved.
    const bool solved = block_sum(worst <= CAYLEY_ACCEPTED ? 0. : 1., scratch) == 0;
    if (!finite || !solved) write_not_a_number();
    __syncthreads();
    if (task.grad_params) write_cayley_gradient(task, item, !finite || !solved);
    __syncthreads();  // the next class uses the same memory
    return solved;
  }

 private:
  const CayleyTask& task;
  const int64_t item;
  const int size, thread, lane, warp;
  const Triangle triangle;
  double* const matrix;
  double *scratch, *b, *x, *correction;  // the vectors are the warp's own

  CISS_DEVICE double& at(int i, int j) const { return matrix[int64_t(j) * size + i]; }

  // I + S = L U in place, L with a unit diagonal.
  CISS_DEVICE void factorise() {
    const double half = 0.5 * task.sign;
    for (int j = warp; j < size; j += CAYLEY_WARPS)
      for (int i = lane; i < size; i += WARP)
        at(i, j) = i == j  ? 1.
                   : i < j ? half * double(triangle.entries[triangle.place(i, j)])
                           : -half * double(triangle.entries[triangle.place(j, i)]);
    __syncthreads();
    for (int k = 0; k + 1 < size; k++) {
      const double inverse = 1 / at(k, k);
      for (int i = k + 1 + thread; i < size; i += CAYLEY_THREADS) at(i, k) *= inverse;
      __syncthreads();
      for (int j = k + 1 + warp; j < size; j += CAYLEY_WARPS) {
        const double factor = at(k, j);
        for (int i = k + 1 + lane; i < size; i += WARP) at(i, j) -= at(i, k) * factor;
      }
      __syncthreads();
    }
  }

  // By a warp. Returns the norm of the residual over that of the right side.
  CISS_DEVICE double solve(int64_t number) {
    const int64_t offset = (item * task.vectors + number) * size;
    const float* const right_side = task.right_sides + offset;
    double largest = 0;
    bool finite = true;
    for (int i = lane; i < size; i += WARP) {
      finite &= is_finite(right_side[i]);
      largest = fmax(largest, fabs(double(right_side[i])));
    }
    finite = !__any_sync(ALL_LANES, !finite);
    for (int lanes = WARP / 2; lanes > 0; lanes /= 2) largest = fmax(largest, __shfl_xor_sync(ALL_LANES, largest, lanes));
    double squares = 0;
    for (int i = lane; i < size; i += WARP) {
      b[i] = correction[i] = finite && largest > 0 ? right_side[i] / largest : 0;
      x[i] = 0;
      squares += b[i] * b[i];
    }
    const double norm = sqrt(warp_sum(squares));
    double error = norm, before;
    do {
      before = error;
      __syncwarp();
      substitute();
      for (int i = lane; i < size; i += WARP) x[i] += correction[i];
      error = subtract();
    } while (error > CAYLEY_WANTED * norm && error < 0.1 * before);
    const double scale = finite ? largest : double(__uint_as_float(0x7fc00000u));
    for (int i = lane; i < size; i += WARP) {
      const float solution = float(x[i] * scale);
      task.solutions[offset + i] = solution;
      task.rotated[offset + i] = 2 * solution - right_side[i];
    }
    return norm > 0 ? error / norm : 0;
  }

  // correction = (L U)^-1 correction.
  CISS_DEVICE void substitute() {
    for (int k = 0; k < size; k++) {
      const double known = correction[k];
      __syncwarp();
      for (int i = k + 1 + lane; i < size; i += WARP) correction[i] -= at(i, k) * known;
      __syncwarp();
    }
    for (int k = size - 1; k >= 0; k--) {
      const double known = correction[k] / at(k, k);
      __syncwarp();
      if (lane == 0) correction[k] = known;
      for (int i = lane; i < k; i += WARP) correction[i] -= at(i, k) * known;
      __syncwarp();
    }
  }

  // correction = b - (I + S) x, from the parameters themselves; returns its norm.
  CISS_DEVICE double subtract() {
    const double half = 0.5 * task.sign;
    __syncwarp();
    for (int i = 0; i < size; i++) {
      const double right = triangle.right_part_of_warp(i, x, lane);
      if (lane == 0) correction[i] = right;
    }
    __syncwarp();
    double squares = 0;
    for (int i = lane; i < size; i += WARP) {
      const double r = b[i] - x[i] - half * (correction[i] + triangle.left_part(i, x));
      correction[i] = r;
      squares += r * r;
    }
    return sqrt(warp_sum(squares));
  }

  CISS_DEVICE void write_not_a_number() const {
    const float nan = __uint_as_float(0x7fc00000u);
    const int64_t first = item * task.vectors * size;
    for (int64_t i = thread; i < task.vectors * size; i += CAYLEY_THREADS)
      task.rotated[first + i] = task.solutions[first + i] = nan;
  }
};

// Every block takes the classes with its number, plus the number of blocks, and so on. products [classes, chunks]: what
// the iterations took.
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS) cayley_elimination_kernel(CISS_CONSTANT CayleyTask task, int chunks,
                                                                        const int32_t* products, double* matrices) {
  CISS_SHARED_MEMORY(memory);
  double* const matrix = matrices + int64_t(blockIdx.x) * task.dimension * task.dimension;
  for (int64_t item = blockIdx.x; item < task.classes; item += gridDim.x) {
    int sum = 0;
    bool failed = false;
    for (int chunk = 0; chunk < chunks; chunk++) {
      const int taken = products[item * chunks + chunk];
      failed |= taken < 0;
      sum += taken;
    }
    if (failed) sum = CayleyElimination(task, item, matrix, memory).run() ? SOLVED_DIRECTLY : NOT_SOLVED;
    if (threadIdx.x == 0) task.iterations[item] = sum;
  }
}

// For classes with more vectors than a block of the iterations takes, once all are solved: sums over the vectors. A NaN in
// the solutions is one in the gradient.
CISS_KERNEL __launch_bounds__(CAYLEY_THREADS) cayley_gradient_kernel(CISS_CONSTANT CayleyTask task) {
  write_cayley_gradient(task, blockIdx.x, false);
}

}  // namespace cuda
}  // namespace ciss
