// One class of a `cayley_rotate` task: what it reads, and how its results are written; compiled once per instruction
// set (see simd.h).
#pragma once

#include "cayley_task.h"
#include "packed_triangle.h"
#include "scratch.h"

namespace ciss {
namespace CISS_ISA {

// A vector as a multiple of one of norm 1, without overflow on the way.
struct Norm {
  bool finite = true;
  double largest = 0, of_scaled = 0;  // largest entry, NaN if not finite; norm of the entries over it

  template <class Real>
  Norm(const Real* x, int64_t count) : finite(poison_of(x, count) == 0) {
    if (!finite) {
      largest = __builtin_nan("");
      return;
    }
    constexpr int L = Simd<Real>::lanes;
    VectorOf<Real> larger_ones{};
    int64_t i = 0;
    for (; i + L <= count; i += L) larger_ones = larger(larger_ones, larger(load(x + i), -load(x + i)));
    largest = largest_lane(larger_ones);
    for (; i < count; i++) largest = __builtin_fmax(largest, __builtin_fabs(double(x[i])));
    if (!(largest > 0)) return;
    const double scale = 1 / largest;
    Double squares{};
    for (i = 0; i + Simd<double>::lanes <= count; i += Simd<double>::lanes) {
      const Double scaled = load_double(x + i) * scale;
      squares += scaled * scaled;
    }
    double rest = 0;
    for (; i < count; i++) rest += (x[i] * scale) * (x[i] * scale);
    of_scaled = __builtin_sqrt(sum_of_lanes(squares) + rest);
  }

  // The one of norm 1 (or 0), filled up with zeros; and from such a one to a multiple.
  template <class Real, class Unit>
  void to_unit(const Real* x, int64_t count, Unit* unit, int64_t padded) const {
    const double scale = largest > 0 ? 1 / largest : 0, factor = largest > 0 ? 1 / of_scaled : 0;
    for (int64_t i = 0; i < count; i++) unit[i] = Unit(x[i] * scale * factor);
    for (int64_t i = count; i < padded; i++) unit[i] = 0;
  }
  template <class Unit, class Real>
  void from_unit(const Unit* unit, int64_t count, Real* x) const {
    for (int64_t i = 0; i < count; i++) x[i] = Real(unit[i] * of_scaled * largest);
  }
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
    const Real poison = poison_of(b, dimension);
    for (int64_t i = 0; i < dimension; i++) rotated[offset + i] = 2 * x[i] - b[i] + poison;
    for (int64_t i = 0; solutions && i < dimension; i++) solutions[offset + i] = x[i] + poison;
  }

  // Elements of memory for each of the vectors and for the row that `write_gradient` takes.
  static int64_t padded(int64_t dimension) { return dimension + 3 * L; }

  // The gradient for few vectors: the sum of y_i x_j - x_i y_j, y and x [vectors][padded]. It is written past the
  // caches, in aligned vectors: megabytes of it would push the parameters out.
  CISS_LOOP void write_gradient(const Real* y, const Real* x, Real* row) const {
    const int64_t stride = padded(dimension);
    Real* out = grad_params;
    int64_t waiting = 0;  // elements in `row`
    for (int64_t i = 0; i + 1 < dimension; i++) {
      for (int64_t j = i + 1; j < dimension; j += L) {  // the last vector's surplus is overwritten
        V sum{};
        for (int64_t v = 0; v < vectors * stride; v += stride)
          sum += load(x + v + j) * y[v + i] - load(y + v + j) * x[v + i];
        store(row + waiting + j - i - 1, sum);
      }
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

// A class with few right sides: its results from solutions for right sides of norm 1.
template <class Real>
class FewVectors {
 public:
  FewVectors(const CayleyTask& task, int64_t item, Scratch& scratch)
      : one(task, item),
        size(CayleyClass<Real>::padded(task.dimension)),
        solutions(scratch.take<Real>(task.vectors * size)),
        forward_solutions(scratch.take<Real>(task.vectors * size)),
        row(scratch.take<Real>(size)) {}

  const CayleyClass<Real> one;

  Norm norm(int64_t v) const { return Norm(one.right_sides + v * one.dimension, one.dimension); }

  // NaN where the norm is not finite, whatever the solution.
  template <class Unit>
  void write(int64_t v, const Norm& norm, const Unit* unit_solution) const {
    norm.from_unit(unit_solution, one.dimension, solutions + v * size);
    one.write(v, solutions + v * size);
  }

  // Once all are written.
  void write_gradient() const {
    if (!one.grad_params) return;
    const size_t bytes = size_t(one.dimension) * sizeof(Real);
    for (int64_t v = 0; v < one.vectors; v++)
      memcpy(forward_solutions + v * size, one.forward_solutions + v * one.dimension, bytes);
    one.write_gradient(forward_solutions, solutions, row);
  }

 private:
  const int64_t size;
  Real *solutions, *forward_solutions, *row;
};

}  // namespace CISS_ISA
}  // namespace ciss
