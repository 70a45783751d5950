#include "rotation_loss.h"

#include <vector>

#include "dispatch.h"
#include "large_pages.h"
#include "parallel.h"

namespace ciss {

RotationResult rotation_loss(RotationTask task, bool double_precision, int32_t* products, int threads) {
  const RotationKernels& kernels = *instruction_set().rotation;
  const CayleyTask& rotations = task.rotations;
  const size_t element = double_precision ? 8 : 4;
  std::vector<double> means(size_t(2 * task.groups() * rotations.dimension));
  std::vector<double> terms(size_t(2 * rotations.classes)), errors(size_t(rotations.classes));
  task.means = means.data();
  task.terms = terms.data();
  if (rotations.grad_params)
    ask_for_large_pages(rotations.grad_params, size_t(rotations.classes * rotations.param_count()) * element);
  const size_t workspace = kernels.workspace_bytes(task, double_precision);
  kernels.prepare(task, double_precision);
  parallel_for(rotations.classes, threads, [&](int64_t item) {
    errors[size_t(item)] = kernels.run(task, item, double_precision, products + item, thread_workspace(workspace));
  });
  RotationResult result;
  result.accepted = kernels.accepted_error(double_precision);
  for (int64_t item = rotations.classes - 1; item >= 0; item--)
    if (!(errors[size_t(item)] <= result.accepted)) {
      result.inaccurate = item;
      result.error = errors[size_t(item)];
    }
  const double share = 1.0 / double(rotations.classes * task.groups());
  for (size_t item = 0; item < errors.size(); item++) {
    result.fidelity += terms[2 * item] * share;
    result.regulariser += terms[2 * item + 1] * share;
  }
  return result;
}

}  // namespace ciss
