// Minimal residuals for I + S with a skew-symmetric S, a block a class: the recurrences of csrc/cpu/skew_krylov.h, which
// ciss_fast/ops/cayley_rotate/README.md derives.
#pragma once

#include "cayley_class.cuh"

namespace ciss {
namespace cuda {

// A product is cheap here, an elimination is not: that serves what does not converge at all.
constexpr int MOST_PRODUCTS = 400;
// So many with a small S leave no room for the recurrences to drift: the residual need not be computed afresh.
constexpr int FEW_PRODUCTS = 8;

// SHARED: the class's triangle is copied into shared memory; else it is read through the L2 cache, product by product.
template <bool SHARED>
class CayleySolver {
 public:
  int products = 0;  // of the last solution

  static size_t shared_bytes(int64_t dimension) {
    return (SHARED ? size_t(dimension * (dimension - 1) / 2) * sizeof(float) : 0) + 8 * size_t(dimension) * sizeof(float) +
           (CAYLEY_WARPS + 1) * sizeof(double) + 16;
  }

  CISS_DEVICE CayleySolver(const CayleyTask& task, int64_t item, unsigned char* memory)
      : size(int(task.dimension)), thread(int(threadIdx.x)) {
    scratch = reinterpret_cast<double*>(memory);
    float* next = reinterpret_cast<float*>(scratch + CAYLEY_WARPS + 1);
    for (float** vector : {&b, &x, &v, &v_before, &w, &w_before, &product, &residual}) {
      *vector = next;
      next += size;
    }
    const float* const params = task.params + item * task.param_count();
    if (SHARED)
      for (int64_t i = thread; i < task.param_count(); i += CAYLEY_THREADS) next[i] = params[i];
    twice_skew = {SHARED ? next : params, size};
    __syncthreads();
  }

  // (I + sign S) solution = right_side, by the whole block; of both a thread reads and writes its own entries only. False
  // where the class has to be solved otherwise.
  CISS_DEVICE bool solve(int sign, const float* right_side, float* solution) {
    half = 0.5f * float(sign);
    const CayleyNorm norm = norm_of(right_side);
    const double to_unit = norm.to_unit();
    for (int k = thread; k < size; k += CAYLEY_THREADS) b[k] = norm.finite ? float(right_side[k] * to_unit) : 0.f;
    __syncthreads();
    if (!solve_unit(norm.finite && norm.largest > 0 ? 1 : 0)) return false;
    const double scale = norm.finite ? norm.from_unit() : double(not_a_number());
    for (int k = thread; k < size; k += CAYLEY_THREADS) solution[k] = float(x[k] * scale);
    __syncthreads();
    return true;
  }

 private:
  const int size, thread;
  float half = 0;
  Triangle twice_skew;
  double* scratch;
  float *b, *x, *v, *v_before, *w, *w_before, *product, *residual;
  double largest_beta = 0;  // entry of the tridiagonal matrix

  CISS_DEVICE CayleyNorm norm_of(const float* right_side) {
    float largest = 0, poison = 0;
    for (int k = thread; k < size; k += CAYLEY_THREADS) {
      largest = fmaxf(largest, fabsf(right_side[k]));
      poison += right_side[k] * 0;
    }
    CayleyNorm norm;
    norm.finite = block_sum(double(poison), scratch) == 0;
    norm.largest = double(block_max(largest, reinterpret_cast<float*>(scratch)));
    double squares = 0;
    if (norm.finite && norm.largest > 0)
      for (int k = thread; k < size; k += CAYLEY_THREADS) {
        const double scaled = right_side[k] / norm.largest;
        squares += scaled * scaled;
      }
    norm.of_scaled = sqrt(block_sum(squares, scratch));
    return norm;
  }

  // product = (U - U^T) of.
  CISS_DEVICE void multiply(const float* of) {
    products++;
    if (SHARED) {
      for (int i = thread; i < size; i += CAYLEY_THREADS)
        product[i] = twice_skew.left_part(i, of) + twice_skew.right_part(i, of);
    } else {
      for (int i = thread / WARP; i < size; i += CAYLEY_WARPS) {
        const float sum = twice_skew.right_part_of_warp(i, of, thread % WARP);
        if (thread % WARP == 0) product[i] = sum;
      }
      __syncthreads();
      for (int i = thread; i < size; i += CAYLEY_THREADS) product[i] += twice_skew.left_part(i, of);
    }
  }  // a thread reads its own entries of `product` only

  // residual = b - (I + S) x; returns its norm.
  CISS_DEVICE double subtract() {
    multiply(x);
    double squares = 0;
    for (int k = thread; k < size; k += CAYLEY_THREADS) {
      residual[k] = b[k] - x[k] - product[k] * half;
      squares += double(residual[k]) * double(residual[k]);
    }
    return sqrt(block_sum(squares, scratch));
  }

  // x from b, of norm 1 or 0.
  CISS_DEVICE bool solve_unit(double norm) {
    products = 0;
    largest_beta = 0;
    for (int k = thread; k < size; k += CAYLEY_THREADS) {
      x[k] = 0;
      residual[k] = b[k];
    }
    do {
      if (norm > 0 && !add_correction(norm)) return false;
      __syncthreads();
      if (norm > 0 && products <= FEW_PRODUCTS && largest_beta < 1) break;
      const double before = norm;
      norm = subtract();
      if (!(norm <= 0.5 * before)) return false;
    } while (norm > CAYLEY_ACCEPTED);
    return true;
  }

  // Adds the solution for `residual`, whose norm is given, to x. False where that takes too many products. Every thread
  // computes the scalars, and its own entries of the vectors.
  CISS_DEVICE bool add_correction(double norm) {
    const float scale = float(1 / norm);
    for (int k = thread; k < size; k += CAYLEY_THREADS) {
      v[k] = residual[k] * scale;
      v_before[k] = w[k] = w_before[k] = 0;
    }
    double beta = 0, cosine = 1, sine = 0, sine_before = 0, remaining = norm;
    while (fabs(remaining) > CAYLEY_WANTED) {
      if (products >= MOST_PRODUCTS) return false;
      __syncthreads();
      multiply(v);
      double squares = 0;
      for (int k = thread; k < size; k += CAYLEY_THREADS) {
        product[k] = product[k] * half + v_before[k] * float(beta);
        squares += double(product[k]) * double(product[k]);
      }
      const double next_beta = sqrt(block_sum(squares, scratch));  // also waits for all readers of v
      largest_beta = next_beta > largest_beta ? next_beta : largest_beta;
      const double diagonal = sqrt(1 / (cosine * cosine) + next_beta * next_beta), coupling = sine_before * beta;
      cosine = 1 / (cosine * diagonal);
      sine_before = sine;
      sine = next_beta / diagonal;
      const float of_v = float(1 / diagonal), of_w = float(coupling / diagonal), step = float(cosine * remaining);
      const float normalise = next_beta > 0 ? float(1 / next_beta) : 0.f;
      for (int k = thread; k < size; k += CAYLEY_THREADS) {
        const float next_w = v[k] * of_v + w_before[k] * of_w;
        w_before[k] = next_w;
        x[k] += next_w * step;
        v_before[k] = product[k] * normalise;
      }
      swap(v, v_before);
      swap(w, w_before);
      beta = next_beta;
      remaining *= -sine;
    }
    return remaining == remaining;
  }

  CISS_DEVICE static void swap(float*& one, float*& other) {
    float* const kept = one;
    one = other;
    other = kept;
  }
};

}  // namespace cuda
}  // namespace ciss
