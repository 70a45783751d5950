// Classes for which minimal residuals do not converge (a large S): elimination in double precision, a block a class, with
// the matrix in device memory. Not fast, but right; csrc/cpu/unpivoted_lu.h says why no pivots are needed.
#pragma once

#include "cayley_class.cuh"

namespace ciss {
namespace cuda {

constexpr int MOST_SLOTS = 64;  // classes that are worked on at a time, each with a matrix of its own

class CayleyElimination {
 public:
  double* scratch;  // for sums over the block

  // For `warps` of them that solve: the first ones.
  static size_t shared_bytes(int64_t dimension, int warps = CAYLEY_WARPS) {
    return size_t(warps * dimension) * 3 * sizeof(double) + (CAYLEY_WARPS + 1) * sizeof(double);
  }

  // matrix [dimension, dimension], column by column.
  CISS_DEVICE CayleyElimination(const CayleyTask& task, int64_t item, double* matrix, unsigned char* memory)
      : size(int(task.dimension)), thread(int(threadIdx.x)), lane(thread % WARP), warp(thread / WARP),
        half(0.5 * task.sign), triangle{task.params + item * task.param_count(), size}, matrix(matrix) {
    scratch = reinterpret_cast<double*>(memory);
    b = scratch + CAYLEY_WARPS + 1 + warp * 3 * size;
    x = b + size;
    correction = x + size;
  }

  // I + sign S = L U in place, L with a unit diagonal; by the whole block. False where a parameter is not finite.
  CISS_DEVICE bool factorise() {
    float poison = 0;
    const int64_t entries = int64_t(size) * (size - 1) / 2;
    for (int64_t i = thread; i < entries; i += CAYLEY_THREADS) poison += triangle.entries[i] * 0;
    if (block_sum(double(poison), scratch) != 0) return false;
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
    return true;
  }

  // (I + sign S) solution = right_side, or with the transposed matrix; by a warp, `right_side` in any memory. Returns the
  // norm of the residual over that of the right side.
  CISS_DEVICE double solve(bool transposed, const float* right_side, float* solution) {
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
      if (transposed)
        substitute_transposed();
      else
        substitute();
      for (int i = lane; i < size; i += WARP) x[i] += correction[i];
      error = subtract(transposed ? -half : half);
    } while (error > CAYLEY_WANTED * norm && error < 0.1 * before);
    const double scale = finite ? largest : double(not_a_number());
    for (int i = lane; i < size; i += WARP) solution[i] = float(x[i] * scale);
    return norm > 0 ? error / norm : 0;
  }
 private:
  const int size, thread, lane, warp;
  const double half;
  const Triangle triangle;
  double* const matrix;
  double *b, *x, *correction;  // the warp's own

  CISS_DEVICE double& at(int i, int j) const { return matrix[int64_t(j) * size + i]; }

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

  // correction = (U^T L^T)^-1 correction: rows of the transposed factors are columns of the matrix.
  CISS_DEVICE void substitute_transposed() {
    for (int k = 0; k < size; k++) {
      double known = 0;
      for (int i = lane; i < k; i += WARP) known += at(i, k) * correction[i];
      known = warp_sum(known);
      if (lane == 0) correction[k] = (correction[k] - known) / at(k, k);
      __syncwarp();
    }
    for (int k = size - 1; k >= 0; k--) {
      double known = 0;
      for (int i = k + 1 + lane; i < size; i += WARP) known += at(i, k) * correction[i];
      known = warp_sum(known);
      if (lane == 0) correction[k] -= known;
      __syncwarp();
    }
  }

  // correction = b - (x + half (U - U^T) x), from the parameters themselves; returns its norm.
  CISS_DEVICE double subtract(double half) {
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
};

}  // namespace cuda
}  // namespace ciss
