#include "cayley_rotate.h"

#include <vector>

#include "dispatch.h"
#include "large_pages.h"
#include "parallel.h"

namespace ciss {

void cayley_iterate(const CayleyTask& task, bool double_precision, int32_t* iterations, int threads) {
  if (task.classes == 0) return;
  const CayleyKernels& kernels = *instruction_set().cayley;
  const size_t workspace = kernels.workspace_bytes(task, double_precision);
  if (task.grad_params)
    ask_for_large_pages(task.grad_params, size_t(task.classes * task.param_count()) * (double_precision ? 8 : 4));
  parallel_for(task.classes, threads, [&](int64_t item) {
    if (iterations[item] == SOLVED_DIRECTLY) return;
    const int products =
        task.few() ? kernels.iterate(task, item, double_precision, thread_workspace(workspace)) : -1;
    iterations[item] = products < 0 ? SOLVED_DIRECTLY : products;
  });
}

size_t cayley_factor_bytes(const CayleyTask& task, bool double_precision, const int32_t* forward_iterations) {
  if (!task.few()) return 0;
  size_t slots = 0;
  for (int64_t item = 0; item < task.classes; item++) slots += forward_iterations[item] == SOLVED_DIRECTLY;
  return slots ? slots * instruction_set().cayley->slot_bytes(task, double_precision) : 0;
}

CayleyFailure cayley_eliminate(const CayleyTask& task, bool double_precision, const int32_t* iterations,
                               const int32_t* forward_iterations, int threads) {
  const CayleyKernels& kernels = *instruction_set().cayley;
  CayleyFailure failure;
  failure.accepted = kernels.accepted_error(double_precision);
  struct Work {
    int64_t item;
    void* slot;
  };
  std::vector<Work> direct;
  char* slot = static_cast<char*>(task.factors);
  for (int64_t item = 0; item < task.classes; item++) {
    const bool kept = slot && forward_iterations[item] == SOLVED_DIRECTLY;
    if (iterations[item] == SOLVED_DIRECTLY) direct.push_back({item, kept ? slot : nullptr});
    if (kept) slot += kernels.slot_bytes(task, double_precision);
  }
  if (direct.empty()) return failure;
  if (task.factors && !task.factors_ready)
    ask_for_large_pages(task.factors, size_t(slot - static_cast<char*>(task.factors)));
  std::vector<double> errors(direct.size());
  const size_t workspace = kernels.workspace_bytes(task, double_precision);
  parallel_for(int64_t(direct.size()), threads, [&](int64_t i) {
    const Work& work = direct[size_t(i)];
    errors[size_t(i)] =
        kernels.eliminate(task, work.item, double_precision, work.slot, thread_workspace(workspace));
  });
  for (size_t i = 0; i < direct.size(); i++)
    if (!(errors[i] <= failure.accepted)) {
      failure.item = direct[i].item;
      failure.error = errors[i];
      break;
    }
  return failure;
}

}  // namespace ciss
