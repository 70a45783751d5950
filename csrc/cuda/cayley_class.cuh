// What the two solvers of cayley_rotate share: a class's triangle, its products with vectors, results.
#pragma once

#include "cayley_rotate.h"
#include "platform.h"

namespace ciss {
namespace cuda {

constexpr int CAYLEY_THREADS = 256, CAYLEY_WARPS = CAYLEY_THREADS / WARP;

// Of a right side of norm 1, the norm of the residual: no eigenvalue of I + S is smaller than 1 in modulus, so the error
// of the solution is at most that large.
constexpr double CAYLEY_WANTED = 5e-7, CAYLEY_ACCEPTED = 1e-6;

enum { SOLVED_DIRECTLY = -1, NOT_SOLVED = -2 };

// U - U^T, of which the entries above the diagonal are kept row by row.
struct Triangle {
  const float* entries;
  int dimension;

  // Of entry (i, j), i < j.
  CISS_DEVICE int64_t place(int i, int j) const { return int64_t(i) * (2 * dimension - i - 1) / 2 + (j - i - 1); }

  // The part of ((U - U^T) x)_i that comes from the columns left of i: the lanes of a warp have neighbouring i, and read
  // neighbouring entries.
  template <class T>
  CISS_DEVICE T left_part(int i, const T* x) const {
    T sum = 0, more = 0;
    int64_t at = i - 1;
    int j = 0;
    for (; j + 2 <= i; j += 2) {
      sum -= T(entries[at]) * x[j];
      at += dimension - j - 2;
      more -= T(entries[at]) * x[j + 1];
      at += dimension - j - 3;
    }
    if (j < i) sum -= T(entries[at]) * x[j];
    return sum + more;
  }
  // From those right of i, by one thread. The banks of shared memory that the lanes of a warp read differ: i (i + odd) / 2
  // takes every value modulo 32 once.
  CISS_DEVICE float right_part(int i, const float* x) const {
    float sum = 0, more = 0;
    const float* const row = entries + place(i, i + 1) - (i + 1);
    int j = i + 1;
    for (; j + 2 <= dimension; j += 2) {
      sum += row[j] * x[j];
      more += row[j + 1] * x[j + 1];
    }
    if (j < dimension) sum += row[j] * x[j];
    return sum + more;
  }
  // By a warp, which reads neighbouring entries.
  template <class T>
  CISS_DEVICE T right_part_of_warp(int i, const T* x, int lane) const {
    const float* const row = entries + place(i, i + 1) - (i + 1);
    T sum = 0;
    for (int j = i + 1 + lane; j < dimension; j += WARP) sum += T(row[j]) * x[j];
    return warp_sum(sum);
  }
};

// A right side as a multiple of a vector of norm 1, without overflow on the way.
struct CayleyNorm {
  double largest = 0, of_scaled = 0;  // largest entry; norm of the entries over it
  bool finite = true;

  CISS_DEVICE double to_unit() const { return largest > 0 ? 1 / largest / of_scaled : 0; }
  CISS_DEVICE double from_unit() const { return of_scaled * largest; }
};

CISS_DEVICE bool is_finite(float x) { return x - x == 0; }
CISS_DEVICE float not_a_number() { return __uint_as_float(0x7fc00000u); }

// The gradient on the parameters of a class from all its vectors; by the whole block, rows dealt out to warps.
CISS_DEVICE void write_cayley_gradient(const CayleyTask& task, int64_t item, bool solved) {
  const int dimension = int(task.dimension), lane = int(threadIdx.x) % WARP;
  const Triangle triangle = {nullptr, dimension};
  const int64_t first = item * task.vectors * task.dimension;
  const float *y = task.forward_solutions + first, *x = task.solutions + first;
  float* const out = task.grad_params + item * task.param_count();
  for (int i = int(threadIdx.x) / WARP; i + 1 < dimension; i += CAYLEY_WARPS)
    for (int j = i + 1 + lane; j < dimension; j += WARP) {
      float sum = 0;
      for (int64_t v = 0; v < task.vectors * task.dimension; v += task.dimension)
        sum += y[v + i] * x[v + j] - x[v + i] * y[v + j];
      out[triangle.place(i, j)] = solved ? sum : not_a_number();
    }
}

}  // namespace cuda
}  // namespace ciss
