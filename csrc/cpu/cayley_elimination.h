// A class of `cayley_rotate` solved directly; compiled once per instruction set (see simd.h).
#pragma once

#include "cayley_class.h"
#include "refined_elimination.h"

namespace ciss {
namespace CISS_ISA {

// Few right sides: factors in single or double precision, and corrections by the residual in double precision.
template <class Real, class Factor>
class FewElimination {
 public:
  // slot: where the factors stay for the backward pass, or where that finds them; may be null.
  FewElimination(const CayleyTask& task, int64_t item, Scratch& scratch, Factor* slot = nullptr)
      : few(task, item, scratch),
        is_ready(slot && task.factors_ready && slot[0] == 1),
        slot(task.factors_ready ? nullptr : slot),
        elimination(few.one.triangle, scratch, is_ready ? slot : nullptr),
        b(scratch.take<double>(elimination.order())),
        x(scratch.take<double>(elimination.order())) {}

  // Elements of a slot. The first, a diagonal entry of U, is 1 in factors that are good for anything.
  static int64_t slot_size(int64_t dimension) { return RefinedElimination<Real, Factor>::size(dimension); }

  // The largest error, relative to the right side's norm.
  double run() {
    const CayleyClass<Real>& one = few.one;
    if (is_ready)  // the forward pass's, whose matrix is the transpose
      elimination.factorised_for(-one.sign);
    else
      elimination.factorise(one.sign);
    double largest = 0;
    for (int64_t v = 0; v < one.vectors; v++) {
      const Norm norm = few.norm(v);
      const double error = norm.finite ? solve(v, norm) : 0;
      few.write(v, norm, x);
      if (!(error <= largest)) largest = error;
      if (error != error) break;
    }
    few.write_gradient();
    if (slot) keep_factors(largest <= Accuracy<Real>::accepted);
    return largest;
  }

 private:
  const FewVectors<Real> few;
  const bool is_ready;  // the slot has the forward pass's factors
  Factor* const slot;   // to be filled
  RefinedElimination<Real, Factor> elimination;
  double *b, *x;

  // Past the caches: many megabytes come between this pass and the backward pass.
  void keep_factors(bool good) const {
    constexpr int L = Simd<Factor>::lanes;
    const int64_t size = slot_size(few.one.dimension);
    const bool aligned = reinterpret_cast<uintptr_t>(slot) % sizeof(VectorOf<Factor>) == 0;
    if (!good || !aligned) {
      slot[0] = 0;
      return;
    }
    for (int64_t i = 0; i < size; i += L) stream(slot + i, load(elimination.factors() + i));
    finish_streams();
  }

  double solve(int64_t v, const Norm& norm) {
    norm.to_unit(few.one.right_sides + v * few.one.dimension, few.one.dimension, b, elimination.order());
    return elimination.solve(few.one.sign, b, x);
  }
};

// Many right sides: factors in double precision. Where there are as many right sides as dimensions, the identity's rows
// are solved for and the right sides multiplied by the result.
template <class Real>
class ManyElimination {
 public:
  ManyElimination(const CayleyTask& task, int64_t item, Scratch& scratch)
      : one(task, item),
        through_identity(task.vectors >= task.dimension),
        rows(through_identity ? task.dimension : task.vectors),
        lu(task.dimension, scratch.take<double>(UnpivotedLu<double>::size(task.dimension))),
        solved{scratch.take<double>((through_identity ? lu.order : rows) * lu.matrix.stride), lu.matrix.stride},
        chunk{scratch.take<Real>(CHUNK * lu.order), lu.order} {
    b_sum = scratch.take<double>(lu.order);
    x_sum = scratch.take<double>(lu.order);
    residual = scratch.take<double>(lu.order);
    if (through_identity) inverse = {scratch.take<Real>(rows * lu.matrix.stride), lu.matrix.stride};
    if (task.grad_params) gradient = {scratch.take<Real>(lu.order * lu.matrix.stride), lu.matrix.stride};
  }

  double run() {
    one.triangle.write_shifted(-0.5 * one.sign, lu.matrix, lu.order);
    lu.factorise();
    const double error = solve();
    for (int64_t i = 0; one.grad_params && i < one.dimension; i++)
      for (int64_t j = 0; j < lu.order; j++) gradient.part(i, j).data[0] = 0;
    for (int64_t first = 0; first < one.vectors; first += CHUNK) {
      const int64_t count = one.vectors - first < CHUNK ? one.vectors - first : CHUNK;
      if (through_identity)
        matrix_product<false, Real>({one.right_sides + first * one.dimension, one.dimension, 1},
                                    {inverse.data, inverse.stride}, chunk, count, one.dimension, lu.order);
      else
        for (int64_t v = 0; v < count; v++) copy_row(solved.part(first + v, 0).data, chunk.part(v, 0).data);
      for (int64_t v = 0; v < count; v++) one.write(first + v, chunk.part(v, 0).data);
      if (one.grad_params)
        matrix_product<true, Real>({one.forward_solutions + first * one.dimension, 1, one.dimension},
                                   {chunk.data, chunk.stride}, gradient, one.dimension, count, lu.order);
    }
    if (one.grad_params) one.write_gradient(gradient);
    return error;
  }

 private:
  static constexpr int64_t CHUNK = 64;

  const CayleyClass<Real> one;
  const bool through_identity;
  const int64_t rows;
  UnpivotedLu<double> lu;
  const Matrix<double> solved;  // [rows, order]: right sides, then solutions
  const Matrix<Real> chunk;     // [CHUNK, order]: solutions for some of the right sides
  double *b_sum, *x_sum, *residual;
  Matrix<Real> inverse{}, gradient{};

  // Solves for all rows. The error is that of their sum with signs, which no single wrong row leaves right.
  double solve() {
    for (int64_t i = 0; i < lu.order; i++) b_sum[i] = x_sum[i] = 0;
    double squares = 0;
    if (through_identity) {
      lu.invert(solved);
      for (int64_t v = 0; v < rows; v++) b_sum[v] = sign_of(v);
      squares = double(rows);
    } else {
      for (int64_t v = 0; v < rows; v++) {
        const Real* right_side = one.right_sides + v * one.dimension;
        double* b = solved.part(v, 0).data;
        for (int64_t i = 0; i < lu.order; i++) b[i] = i < one.dimension ? double(right_side[i]) : 0;
        squares += add(b, v, b_sum);
      }
      lu.solve_rows(solved, rows);
    }
    for (int64_t v = 0; v < rows; v++) {
      add(solved.part(v, 0).data, v, x_sum);
      if (through_identity) copy_row(solved.part(v, 0).data, inverse.part(v, 0).data);
    }
    const double error = one.triangle.residual(0.5 * one.sign, b_sum, x_sum, residual);
    return squares > 0 ? error / __builtin_sqrt(squares) : 0;
  }

  static double sign_of(int64_t v) { return uint32_t(v) * 2654435769u >> 31 ? -1 : 1; }

  // Adds a row, or its negative, unless it is not finite; returns its squared norm.
  double add(const double* row, int64_t v, double* sum) const {
    constexpr int L = Simd<double>::lanes;
    Double square_sums{};
    for (int64_t i = 0; i < lu.order; i += L) square_sums += load(row + i) * load(row + i);
    const double squares = sum_of_lanes(square_sums);
    if (squares - squares != 0) return 0;
    for (int64_t i = 0; i < lu.order; i++) sum[i] += sign_of(v) * row[i];
    return squares;
  }

  void copy_row(const double* row, Real* out) const {
    for (int64_t i = 0; i < lu.order; i++) out[i] = Real(row[i]);
  }
};

}  // namespace CISS_ISA
}  // namespace ciss
