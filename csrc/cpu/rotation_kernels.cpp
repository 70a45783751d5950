// The kernels of `rotation_loss`; compiled once per instruction set (see simd.h).
#include "rotation_class.h"

namespace ciss {
namespace CISS_ISA {

template <class Fit>
static size_t bytes_of(const RotationTask& task) {
  Scratch scratch{nullptr};
  Fit(task, 0, scratch);
  return scratch.used;
}

template <class Real>
static size_t workspace_of(const RotationTask& task) {
  const size_t iterative = bytes_of<ClassFit<Real, ByProducts<Real>>>(task);
  const size_t direct = bytes_of<ClassFit<Real, ByElimination<Real, double>>>(task);
  return direct > iterative ? direct : iterative;
}

template <class Real>
static void write_mean(const Real* rows, int64_t count, int64_t size, Real* mean) {
  for (int64_t i = 0; i < size; i++) mean[i] = 0;
  for (int64_t row = 0; row < count; row++) add_multiple(1, rows + row * size, size, mean);
  for (int64_t i = 0; i < size; i++) mean[i] /= Real(count);
}

template <class Real>
static void prepare_in(const RotationTask& task) {
  const int64_t size = task.groups() * task.rotations.dimension;
  Real* means = static_cast<Real*>(task.means);
  write_mean(static_cast<const Real*>(task.previous), task.rotations.classes, size, means);
  write_mean(static_cast<const Real*>(task.current), task.rotations.classes, size, means + size);
}

template <class Real>
static void write_not_a_number(const RotationTask& task, int64_t item) {
  const int64_t count = task.rotations.param_count();
  Real* gradient = static_cast<Real*>(task.rotations.grad_params);
  for (int64_t i = 0; gradient && i < count; i++) gradient[item * count + i] = Real(__builtin_nan(""));
  task.terms[2 * item] = task.terms[2 * item + 1] = __builtin_nan("");
}

template <class Real>
static double run_in(const RotationTask& task, int64_t item, int32_t* products, void* workspace) {
  Scratch scratch{static_cast<char*>(workspace)};
  ClassFit<Real, ByProducts<Real>> iterative(task, item, scratch);
  if (iterative.run()) {
    *products = iterative.solver.products;
    return 0;
  }
  *products = -1;
  if (!CayleyClass<Real>(task.rotations, item).triangle.finite()) {
    write_not_a_number<Real>(task, item);
    return 0;
  }
  // Factors of the arithmetic's own precision suffice unless S is very large.
  if (sizeof(Real) == 4) {
    scratch.used = 0;
    ClassFit<Real, ByElimination<Real, Real>> direct(task, item, scratch);
    if (direct.run()) return direct.solver.error;
  }
  scratch.used = 0;
  ClassFit<Real, ByElimination<Real, double>> direct(task, item, scratch);
  direct.run();
  return direct.solver.error;
}

static size_t workspace_bytes(const RotationTask& task, bool double_precision) {
  return double_precision ? workspace_of<double>(task) : workspace_of<float>(task);
}

static void prepare(const RotationTask& task, bool double_precision) {
  double_precision ? prepare_in<double>(task) : prepare_in<float>(task);
}

static double run(const RotationTask& task, int64_t item, bool double_precision, int32_t* products, void* workspace) {
  [[maybe_unused]] const FlushDenormals flush;
  return double_precision ? run_in<double>(task, item, products, workspace)
                          : run_in<float>(task, item, products, workspace);
}

static double accepted_error(bool double_precision) {
  return double_precision ? Accuracy<double>::accepted : Accuracy<float>::accepted;
}

extern const RotationKernels rotation_kernels;
const RotationKernels rotation_kernels = {workspace_bytes, prepare, run, accepted_error};

}  // namespace CISS_ISA
}  // namespace ciss
