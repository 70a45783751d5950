// One class of a `cayley_rotate` task: what it reads, and how its results are written; compiled once per instruction set
// (see simd.h).
#pragma once

#include "cayley_task.h"
#include "packed_triangle.h"

namespace ciss {
namespace CISS_ISA {

// A vector as a multiple of one of norm 1.
struct Norm {
  double largest = 0, of_scaled = 0;  // largest entry; norm of the entries over it

  template <class Real>
  Norm(const Real* x, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
      const double magnitude = __builtin_fabs(double(x[i]));
      if (!(magnitude <= largest) && largest == largest) largest = magnitude;  // NaN stays
    }
    if (!(largest > 0)) return;
    for (int64_t i = 0; i < count; i++) of_scaled += (x[i] / largest) * (x[i] / largest);
    of_scaled = __builtin_sqrt(of_scaled);
  }
  bool finite() const { return largest - largest == 0; }
  double unit(double x) const { return largest > 0 ? x / largest / of_scaled : 0; }
  double scaled(double x) const { return x * of_scaled * largest; }
};

// One class: its part of every array.
template <class Real>
struct CayleyClass {
  typedef VectorOf<Real> V;
  static constexpr int L = Simd<Real>::lanes;

  const int64_t vectors, dimension;
  const int sign;
  const PackedTriangle<Real> triangle;
  const Real *right_sides, *forward_solutions;
  Real *rotated, *solutions, *grad_params;

  CayleyClass(const CayleyTask& task, int64_t item)
      : vectors(task.vectors),
        dimension(task.dimension),
        sign(task.sign),
        triangle{static_cast<const Real*>(task.params) + item * task.param_count(), task.dimension},
        right_sides(part<const Real>(task.right_sides, item)),
        forward_solutions(part<const Real>(task.forward_solutions, item)),
        rotated(part<Real>(task.rotated, item)),
        solutions(part<Real>(task.solutions, item)),
        grad_params(task.grad_params ? static_cast<Real*>(task.grad_params) + item * task.param_count() : nullptr) {}

  // `x` is the solution for right side `v`. One with a NaN or an infinity gives NaN throughout.
  void write(int64_t v, const Real* x) const {
    const int64_t offset = v * dimension;
    const Real* b = right_sides + offset;
    Real poison = 0;
    for (int64_t i = 0; i < dimension; i++) poison += b[i] * Real(0);
    for (int64_t i = 0; i < dimension; i++) rotated[offset + i] = 2 * x[i] - b[i] + poison;
    for (int64_t i = 0; solutions && i < dimension; i++) solutions[offset + i] = x[i] + poison;
  }

  // Elements of memory that `write_gradient` of single vectors needs.
  static int64_t row_buffer_size(int64_t dimension) { return dimension + 3 * L; }

  // The gradient for a single vector: y_i x_j - x_i y_j, both padded to whole vectors. It is written past the caches, in
  // aligned vectors: megabytes of it would push the parameters out.
  CISS_LOOP void write_gradient(const Real* y, const Real* x, Real* row) const {
    Real* out = grad_params;
    int64_t waiting = 0;  // elements in `row`
    for (int64_t i = 0; i + 1 < dimension; i++) {
      for (int64_t j = i + 1; j < dimension; j += L) store(row + waiting + j - i - 1, load(x + j) * y[i] - load(y + j) * x[i]);
      waiting += dimension - i - 1;
      int64_t done = 0;
      for (; done < waiting && reinterpret_cast<uintptr_t>(out) % sizeof(V); done++) *out++ = row[done];
      for (; done + L <= waiting; done += L, out += L) stream(out, load(row + done));
      waiting -= done;
      store(row, load(row + done));
    }
    for (int64_t k = 0; k < waiting; k++) out[k] = row[k];
    finish_streams();
  }

  // The gradient from the sum over the vectors of -y_i x_j.
  void write_gradient(const Matrix<Real>& sum) const {
    Real* out = grad_params;
    for (int64_t i = 0; i < dimension; i++)
      for (int64_t j = i + 1; j < dimension; j++) *out++ = sum.part(j, i).data[0] - sum.part(i, j).data[0];
  }

  // Returns 0, the error of an answer that is as it should be.
  double write_not_a_number() const {
    const Real nan = __builtin_nanf("");
    for (int64_t i = 0; i < vectors * dimension; i++) rotated[i] = nan;
    for (int64_t i = 0; solutions && i < vectors * dimension; i++) solutions[i] = nan;
    for (int64_t i = 0; grad_params && i < triangle.count(); i++) grad_params[i] = nan;
    return 0;
  }

 private:
  template <class Pointed, class Pointer>
  Pointed* part(Pointer* array, int64_t item) const {
    return array ? static_cast<Pointed*>(array) + item * vectors * dimension : nullptr;
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
