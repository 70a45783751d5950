// The kernels of `cayley_rotate`; compiled once per instruction set (see simd.h).
#include "cayley_elimination.h"
#include "skew_krylov.h"

namespace ciss {
namespace CISS_ISA {

// Few right sides, solved by products.
template <class Real>
class Iteration {
 public:
  Iteration(const CayleyTask& task, int64_t item, Scratch& scratch)
      : few(task, item, scratch),
        twice_skew(task.dimension, scratch),
        krylov(twice_skew, task.dimension, scratch),
        b(scratch.take<Real>(SkewTiles<Real>::padded(task.dimension))),
        x(scratch.take<Real>(SkewTiles<Real>::padded(task.dimension))) {}

  int run() {
    const CayleyClass<Real>& one = few.one;
    twice_skew.pack(one.triangle.entries);
    // An elimination is worth that many products, and the solutions with its factors some more.
    const int most_products = 64 + 16 * int(one.vectors);
    int products = 0;
    for (int64_t v = 0; v < one.vectors; v++) {
      const Norm norm = few.norm(v);
      if (norm.finite) {
        norm.to_unit(one.right_sides + v * one.dimension, one.dimension, b, SkewTiles<Real>::padded(one.dimension));
        const int taken = krylov.solve(one.sign, b, x, most_products - products);
        if (taken < 0) return -1;
        products += taken;
      }
      few.write(v, norm, x);
    }
    few.write_gradient();
    return products;
  }

 private:
  const FewVectors<Real> few;
  SkewTiles<Real> twice_skew;
  SkewKrylov<Real> krylov;
  Real *b, *x;
};

template <class Work>
static size_t bytes_of(const CayleyTask& task) {
  Scratch scratch{nullptr};
  Work(task, 0, scratch);
  return scratch.used;
}

template <class Real>
static size_t workspace_of(const CayleyTask& task) {
  if (!task.few()) return bytes_of<ManyElimination<Real>>(task);
  const size_t direct = bytes_of<FewElimination<Real, double>>(task), iterative = bytes_of<Iteration<Real>>(task);
  return direct > iterative ? direct : iterative;
}

template <class Real>
static int iterate_in(const CayleyTask& task, int64_t item, void* workspace) {
  Scratch scratch{static_cast<char*>(workspace)};
  return Iteration<Real>(task, item, scratch).run();
}

template <class Real>
static double eliminate_in(const CayleyTask& task, int64_t item, void* slot, void* workspace) {
  const CayleyClass<Real> one(task, item);
  if (!one.triangle.finite()) return one.write_not_a_number();
  Scratch scratch{static_cast<char*>(workspace)};
  if (!task.few()) return ManyElimination<Real>(task, item, scratch).run();
  // Factors of the arithmetic's own precision suffice unless S is very large.
  const double error = FewElimination<Real, Real>(task, item, scratch, static_cast<Real*>(slot)).run();
  if (error <= Accuracy<Real>::accepted || sizeof(Real) == 8) return error;
  scratch.used = 0;
  return FewElimination<Real, double>(task, item, scratch).run();
}

static size_t workspace_bytes(const CayleyTask& task, bool double_precision) {
  return double_precision ? workspace_of<double>(task) : workspace_of<float>(task);
}

static int iterate(const CayleyTask& task, int64_t item, bool double_precision, void* workspace) {
  [[maybe_unused]] const FlushDenormals flush;
  return double_precision ? iterate_in<double>(task, item, workspace) : iterate_in<float>(task, item, workspace);
}

static size_t slot_bytes(const CayleyTask& task, bool double_precision) {
  return double_precision ? size_t(FewElimination<double, double>::slot_size(task.dimension)) * sizeof(double)
                          : size_t(FewElimination<float, float>::slot_size(task.dimension)) * sizeof(float);
}

static double eliminate(const CayleyTask& task, int64_t item, bool double_precision, void* slot, void* workspace) {
  [[maybe_unused]] const FlushDenormals flush;
  return double_precision ? eliminate_in<double>(task, item, slot, workspace)
                          : eliminate_in<float>(task, item, slot, workspace);
}

static double accepted_error(bool double_precision) {
  return double_precision ? Accuracy<double>::accepted : Accuracy<float>::accepted;
}

extern const CayleyKernels cayley_kernels;
const CayleyKernels cayley_kernels = {workspace_bytes, iterate, slot_bytes, eliminate, accepted_error};

}  // namespace CISS_ISA
}  // namespace ciss
