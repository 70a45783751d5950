#include "cayley_rotate.h"

#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace ciss {

CayleyFailure cayley_rotate(const CayleyTask& task, bool double_precision, int32_t* iterations, int threads) {
  const CayleyKernels& kernels = *instruction_set().cayley;
  CayleyFailure failure;
  failure.accepted = kernels.accepted_error(double_precision);
  if (task.classes == 0) return failure;
  const size_t workspace = kernels.workspace_bytes(task, double_precision);
  if (task.few())
    parallel_for(task.classes, threads, [&](int64_t item) {
      if (iterations[item] == SOLVED_DIRECTLY) return;
      const int products = kernels.iterate(task, item, double_precision, thread_workspace(workspace));
      iterations[item] = products < 0 ? SOLVED_DIRECTLY : products;
    });
  else
    for (int64_t item = 0; item < task.classes; item++) iterations[item] = SOLVED_DIRECTLY;

  std::vector<int64_t> direct;
  for (int64_t item = 0; item < task.classes; item++)
    if (iterations[item] == SOLVED_DIRECTLY) direct.push_back(item);
  std::vector<double> errors(direct.size());
  parallel_for(int64_t(direct.size()), threads, [&](int64_t i) {
    errors[size_t(i)] = kernels.eliminate(task, direct[size_t(i)], double_precision, thread_workspace(workspace));
  });
  for (size_t i = 0; i < direct.size(); i++)
    if (!(errors[i] <= failure.accepted)) {
      failure.item = direct[i];
      failure.error = errors[i];
      break;
    }
  return failure;
}

}  // namespace ciss
