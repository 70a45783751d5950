// Launches of cayley_rotate.
#include "cayley_rotate.h"

#include <algorithm>

#include "cayley_kernels.cuh"
#include "workspace.h"

namespace ciss {
namespace cuda {
namespace {

constexpr int64_t FEW_VECTORS = 8, VECTORS_PER_CHUNK = 16;

struct Plan {
  int64_t chunk, chunks, slots;  // right sides a block takes; blocks a class; classes eliminated at a time
  Workspace memory;
  int32_t* products;
  double* matrices;

  Plan(const CayleyTask& task, void* base)
      : chunk(task.vectors <= FEW_VECTORS ? task.vectors : VECTORS_PER_CHUNK),
        chunks((task.vectors + chunk - 1) / chunk), slots(std::min<int64_t>(task.classes, MOST_SLOTS)),
        memory{static_cast<char*>(base)} {
    products = memory.take<int32_t>(task.classes * chunks);
    matrices = memory.take<double>(slots * task.dimension * task.dimension);
  }
};

template <bool SHARED>
void launch_krylov(const CayleyTask& task, const Plan& plan, Stream stream) {
  launch("cayley_krylov", cayley_krylov_kernel<SHARED>, {task.classes * plan.chunks, 1}, CAYLEY_THREADS,
         CayleySolver<SHARED>::shared_bytes(task.dimension), stream, task, plan.chunk, plan.chunks, plan.products);
}

}  // namespace

size_t cayley_workspace_bytes(const CayleyTask& task) { return Plan(task, nullptr).memory.used; }

void cayley_rotate(const CayleyTask& task, void* workspace, void* stream_address) {
  const Stream stream = static_cast<Stream>(stream_address);
  const Plan plan(task, workspace);
  const size_t limit = largest_shared_memory(), needed = std::max(CayleySolver<false>::shared_bytes(task.dimension),
                                                                  CayleyElimination::shared_bytes(task.dimension));
  if (needed > limit)
    throw std::runtime_error("cayley_rotate: expected vectors that fit into " + std::to_string(limit) +
                             " bytes of shared memory, got dimension " + std::to_string(task.dimension) +
                             ", which takes " + std::to_string(needed));
  if (CayleySolver<true>::shared_bytes(task.dimension) <= limit)
    launch_krylov<true>(task, plan, stream);
  else
    launch_krylov<false>(task, plan, stream);
  launch("cayley_elimination", cayley_elimination_kernel, {plan.slots, 1}, CAYLEY_THREADS,
         CayleyElimination::shared_bytes(task.dimension), stream, task, plan.chunks,
         static_cast<const int32_t*>(plan.products), plan.matrices);
  if (task.grad_params && plan.chunks > 1)
    launch("cayley_gradient", cayley_gradient_kernel, {task.classes, 1}, CAYLEY_THREADS, 0, stream, task);
}

}  // namespace cuda
}  // namespace ciss
