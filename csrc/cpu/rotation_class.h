// One class of a `rotation_loss` task: its two terms and their gradient on its parameters; compiled once per instruction
// set (see simd.h). ciss_fast/ops/rotation_loss/README.md derives what is done.
#pragma once

#include "cayley_class.h"
#include "refined_elimination.h"
#include "rotation_task.h"

namespace ciss {
namespace CISS_ISA {

// A product of two vectors, in double precision.
template <class Real>
CISS_INLINE double inner_product(const Real* a, const Real* b, int64_t count) {
  constexpr int L = Simd<double>::lanes;
  Double sums{}, more_sums{};
  int64_t i = 0;
  for (; i + 2 * L <= count; i += 2 * L) {
    sums += load_double(a + i) * load_double(b + i);
    more_sums += load_double(a + i + L) * load_double(b + i + L);
  }
  double rest = 0;
  for (; i < count; i++) rest += double(a[i]) * double(b[i]);
  return sum_of_lanes(sums + more_sums) + rest;
}

// y += scale x
template <class Real>
CISS_INLINE void add_multiple(double scale, const Real* x, int64_t count, Real* y) {
  constexpr int L = Simd<Real>::lanes;
  int64_t i = 0;
  for (; i + L <= count; i += L) store(y + i, load(y + i) + load(x + i) * Real(scale));
  for (; i < count; i++) y[i] += Real(scale) * x[i];
}

// Solves by products with S, which has room in the second-level cache for as long as a class takes.
template <class Real>
class ByProducts {
 public:
  typedef Real Unit;
  int32_t products = 0;

  ByProducts(const PackedTriangle<Real>& triangle, Scratch& scratch)
      : triangle(triangle), twice_skew(triangle.dimension, scratch), krylov(twice_skew, triangle.dimension, scratch) {}

  int64_t padded() const { return SkewTiles<Real>::padded(triangle.dimension); }
  void prepare() { twice_skew.pack(triangle.entries); }
  bool solve(int sign, const Real* b, Real* x) {
    const double wanted = sign > 0 ? Accuracy<Real>::wanted : Accuracy<Real>::wanted_of_gradient;
    const int taken = krylov.solve(sign, b, x, MOST_PRODUCTS, wanted);
    products += taken;
    return taken >= 0;
  }

 private:
  static constexpr int MOST_PRODUCTS = 80;  // an elimination is worth more, but for larger S these do not suffice anyway

  const PackedTriangle<Real> triangle;
  SkewTiles<Real> twice_skew;
  SkewKrylov<Real> krylov;
};

// Solves with factors of I + S, which serve both passes.
template <class Real, class Factor>
class ByElimination {
 public:
  typedef double Unit;
  double error = 0;

  ByElimination(const PackedTriangle<Real>& triangle, Scratch& scratch) : elimination(triangle, scratch) {}

  int64_t padded() const { return elimination.order(); }
  void prepare() { elimination.factorise(1); }
  bool solve(int sign, const double* b, double* x) {
    const double reached = elimination.solve(sign, b, x);
    if (!(reached <= error)) error = reached;
    return error <= Accuracy<Real>::accepted;
  }

 private:
  RefinedElimination<Real, Factor> elimination;
};

template <class Real, class Solver>
class ClassFit {
 public:
  Solver solver;

  ClassFit(const RotationTask& task, int64_t item, Scratch& scratch)
      : solver(CayleyClass<Real>(task.rotations, item).triangle, scratch),
        task(task),
        item(item),
        dimension(task.rotations.dimension),
        one(task.rotations, item),
        stride(CayleyClass<Real>::padded(dimension)),
        solutions(scratch.take<Real>(task.groups() * stride)),
        adjoint_solutions(scratch.take<Real>(task.groups() * stride)),
        row(scratch.take<Real>(stride)),
        right_side(scratch.take<Real>(dimension)),
        target(scratch.take<Real>(dimension)),
        rotated(scratch.take<Real>(dimension)),
        features(scratch.take<Real>(dimension)),
        adjoint(scratch.take<Real>(dimension)),
        logits(scratch.take<Real>(task.outputs + Simd<Real>::lanes)),
        unit_right_side(scratch.take<typename Solver::Unit>(solver.padded())),
        unit_solution(scratch.take<typename Solver::Unit>(solver.padded())) {}

  // False where the solver does not get there; nothing that was written counts then.
  bool run() {
    const Real* means = static_cast<const Real*>(task.means);
    const int64_t groups = task.groups();
    double fidelity = 0, regulariser = 0;
    solver.prepare();
    for (int64_t g = 0; g < groups; g++) {
      const int64_t place = (item * groups + g) * dimension;
      const Real *previous = static_cast<const Real*>(task.previous) + place, *previous_mean = means + g * dimension;
      const Real *current = static_cast<const Real*>(task.current) + place, *mean = previous_mean + groups * dimension;
      Real* solution = solutions + g * stride;
      for (int64_t i = 0; i < dimension; i++) {
        right_side[i] = previous[i] - previous_mean[i];
        target[i] = current[i] - mean[i];
      }
      if (!solve(1, right_side, solution)) return false;
      for (int64_t i = 0; i < dimension; i++) {
        rotated[i] = 2 * solution[i] - right_side[i];
        features[i] = rotated[i] + mean[i];
        adjoint[i] = 0;
      }
      fidelity += add_fidelity();
      regulariser += add_regulariser();
      if (one.grad_params && !solve(-1, adjoint, adjoint_solutions + g * stride)) return false;
    }
    if (one.grad_params) one.write_gradient(solutions, adjoint_solutions, row);
    task.terms[2 * item] = fidelity;
    task.terms[2 * item + 1] = regulariser;
    return true;
  }

 private:
  const RotationTask& task;
  const int64_t item, dimension;
  const CayleyClass<Real> one;
  const int64_t stride;
  Real *solutions, *adjoint_solutions, *row, *right_side, *target, *rotated, *features, *adjoint, *logits;
  typename Solver::Unit *unit_right_side, *unit_solution;

  // Of both terms: means over classes and groups.
  double share() const { return 1.0 / double(task.rotations.classes * task.groups()); }

  // Solves (I + sign S) x = b. A `b` with a NaN or an infinity gives NaN.
  bool solve(int sign, const Real* b, Real* x) {
    const Norm norm(b, dimension);
    if (norm.finite) {
      norm.to_unit(b, dimension, unit_right_side, solver.padded());
      if (!solver.solve(sign, unit_right_side, unit_solution)) return false;
    }
    norm.from_unit(unit_solution, dimension, x);
    return true;
  }

  // 1 - cos(r, t), r being rotated. Norms below 1e-8 count as 1e-8, as in torch's cosine_similarity.
  double add_fidelity() {
    const double least = 1e-8, weight = task.fidelity_weight * share();
    const double squares = inner_product(rotated, rotated, dimension);
    const double of_target = __builtin_sqrt(inner_product(target, target, dimension));
    const double of_rotated = __builtin_sqrt(squares);
    const double norms = (of_rotated < least ? least : of_rotated) * (of_target < least ? least : of_target);
    const double cosine = inner_product(rotated, target, dimension) / norms;
    add_multiple(-weight / norms, target, dimension, adjoint);
    if (!(of_rotated < least)) add_multiple(weight * cosine / squares, rotated, dimension, adjoint);
    return 1 - cosine;
  }

  // Cross entropy of the classifier's logits for r + o against the class.
  double add_regulariser() {
    constexpr int L = Simd<Real>::lanes;
    const double weight = (1 - task.fidelity_weight) * share();
    const Real *rows = static_cast<const Real*>(task.weight), *bias = static_cast<const Real*>(task.bias);
    multiply_rows(rows, features);
    double largest = Simd<Real>::lowest;
    for (int64_t j = 0; j < task.outputs; j++) {
      logits[j] += bias[j];
      if (logits[j] > largest) largest = logits[j];
    }
    const double own = double(logits[item]) - largest;
    for (int64_t j = task.outputs; j < task.outputs + L; j++) logits[j] = Simd<Real>::lowest;
    double sum = double(poison_of(logits, task.outputs));
    for (int64_t j = 0; j < task.outputs; j += L) {
      const VectorOf<Real> shifted = (load(logits + j) - Real(largest)) * Real(1.4426950408889634);
      const VectorOf<Real> power = exp2<Real>(shifted);
      store(logits + j, power);
      sum += sum_of_lanes(power);
    }
    for (int64_t j = 0; j < task.outputs; j++) logits[j] *= Real(weight / sum);
    add_rows(rows, logits, adjoint);
    add_multiple(-weight, rows + item * dimension, dimension, adjoint);
    return __builtin_log(sum) - own;
  }

  // logits = rows x for the classifier's rows.
  CISS_LOOP void multiply_rows(const Real* rows, const Real* x) {
    typedef VectorOf<Real> V;
    constexpr int L = Simd<Real>::lanes;
    const int64_t whole = dimension / L * L;
    int64_t first = 0;
    for (; first + L <= task.outputs; first += L) {
      const Real* row = rows + first * dimension;
      V sums[L];
#pragma GCC unroll 16
      for (int j = 0; j < L; j++) sums[j] = V{};
      for (int64_t i = 0; i < whole; i += L) {
        const V x_part = load(x + i);
#pragma GCC unroll 16
        for (int j = 0; j < L; j++) sums[j] += load(row + j * dimension + i) * x_part;
      }
      store(logits + first, sums_of_rows<Real>(sums));
      for (int j = 0; j < L; j++)
        for (int64_t i = whole; i < dimension; i++) logits[first + j] += row[j * dimension + i] * x[i];
    }
    for (; first < task.outputs; first++) logits[first] = Real(inner_product(rows + first * dimension, x, dimension));
  }

  // y += the classifier's rows, each as many times as `factors` says.
  CISS_LOOP void add_rows(const Real* rows, const Real* factors, Real* y) const {
    typedef VectorOf<Real> V;
    constexpr int L = Simd<Real>::lanes, VECTORS = 8;
    int64_t i = 0;
    for (; i + VECTORS * L <= dimension; i += VECTORS * L) {
      V sums[VECTORS];
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) sums[v] = load(y + i + v * L);
      for (int64_t j = 0; j < task.outputs; j++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sums[v] += load(rows + j * dimension + i + v * L) * factors[j];
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) store(y + i + v * L, sums[v]);
    }
    for (int64_t j = 0; i < dimension && j < task.outputs; j++)
      add_multiple(double(factors[j]), rows + j * dimension + i, dimension - i, y + i);
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
