// Direct solutions for I + S with a skew-symmetric S, corrected until they are accurate; compiled once per instruction
// set (see simd.h).
#pragma once

#include "packed_triangle.h"
#include "scratch.h"
#include "skew_krylov.h"
#include "unpivoted_lu.h"

namespace ciss {
namespace CISS_ISA {

// Factors in single or double precision (`Factor`), corrections by the residual in double precision.
template <class Real, class Factor>
class RefinedElimination {
 public:
  // factors: `size` elements that are filled already (see `factorised_for`); null: scratch memory.
  RefinedElimination(const PackedTriangle<Real>& triangle, Scratch& scratch, Factor* factors = nullptr)
      : triangle(triangle),
        lu(triangle.dimension, factors ? factors : scratch.take<Factor>(size(triangle.dimension))),
        correction(scratch.take<Factor>(lu.order)),
        residual(scratch.take<double>(lu.order)) {}

  static int64_t size(int64_t dimension) { return UnpivotedLu<Factor>::size(dimension); }
  int64_t order() const { return lu.order; }
  const Factor* factors() const { return lu.matrix.data; }

  // Makes the factors of (I + sign S)^T, with which systems of both signs can be solved.
  void factorise(int sign) {
    triangle.write_shifted(Factor(-0.5 * sign), lu.matrix, lu.order);
    lu.factorise();
    factorised_for(sign);
  }
  // The factors are those that `factorise(sign)` makes.
  void factorised_for(int sign) { sign_of_factors = sign; }

  // Solves (I + sign S) x = b for a `b` [order] of norm 1 or 0. Returns the norm of the residual.
  double solve(int sign, const double* b, double* x) {
    for (int64_t i = 0; i < lu.order; i++) residual[i] = b[i], x[i] = 0;
    double error = 1, before;
    do {
      before = error;
      for (int64_t i = 0; i < lu.order; i++) correction[i] = Factor(residual[i]);
      if (sign == sign_of_factors)
        lu.solve_rows({correction, lu.order}, 1);
      else
        lu.solve_column(correction);
      for (int64_t i = 0; i < triangle.dimension; i++) x[i] += correction[i];
      error = triangle.residual(0.5 * sign, b, x, residual);
    } while (error > Accuracy<Real>::wanted && error < 0.1 * before);
    return error;
  }

 private:
  const PackedTriangle<Real> triangle;
  UnpivotedLu<Factor> lu;
  Factor* correction;
  double* residual;
  int sign_of_factors = 0;
};

}  // namespace CISS_ISA
}  // namespace ciss
