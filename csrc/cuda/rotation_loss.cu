// Launches of rotation_loss.
#include "rotation_loss.h"

#include <algorithm>

#include "rotation_kernels.cuh"
#include "workspace.h"

namespace ciss {
namespace cuda {
namespace {

struct Plan {
  int64_t slots;  // classes eliminated at a time
  RotationTask task;
  double* matrices;
  Workspace memory;

  Plan(const RotationTask& given, void* base)
      : slots(std::min<int64_t>(given.rotations.classes, MOST_SLOTS)), task(given),
        memory{static_cast<char*>(base)} {
    const int64_t vectors = given.rotations.vectors * given.rotations.dimension;
    task.means = memory.take<float>(2 * vectors);
    task.terms = memory.take<double>(2 * given.rotations.classes);
    task.rotations.forward_solutions = memory.take<float>(given.rotations.classes * vectors);
    task.rotations.solutions = memory.take<float>(given.rotations.classes * vectors);
    matrices = memory.take<double>(slots * given.rotations.dimension * given.rotations.dimension);
  }
};

template <bool SHARED>
size_t krylov_bytes(const RotationTask& task) {
  return RotationClass::shared_bytes(task) + CayleySolver<SHARED>::shared_bytes(task.rotations.dimension);
}

template <bool SHARED>
void launch_krylov(const RotationTask& task, Stream stream) {
  launch("rotation_krylov", rotation_krylov_kernel<SHARED>, {task.rotations.classes, 1}, CAYLEY_THREADS,
         krylov_bytes<SHARED>(task), stream, task);
}

}  // namespace

size_t rotation_workspace_bytes(const RotationTask& task) { return Plan(task, nullptr).memory.used; }

void rotation_loss(const RotationTask& given, void* workspace, void* stream_address) {
  const Stream stream = static_cast<Stream>(stream_address);
  const Plan plan(given, workspace);
  const RotationTask& task = plan.task;
  const int64_t dimension = task.rotations.dimension;
  const size_t eliminating = RotationClass::shared_bytes(task) + EliminatingSolver::shared_bytes(dimension);
  const size_t limit = largest_shared_memory(), needed = std::max(krylov_bytes<false>(task), eliminating);
  if (needed > limit)
    throw std::runtime_error("rotation_loss: expected vectors that fit into " + std::to_string(limit) +
                             " bytes of shared memory, got dimension " + std::to_string(dimension) + " and " +
                             std::to_string(task.outputs) + " outputs, which take " + std::to_string(needed));
  const int64_t columns = task.rotations.vectors * dimension;
  launch("rotation_means", rotation_means_kernel, {(columns + WARP - 1) / WARP, 2}, MEAN_THREADS,
         MEAN_THREADS * sizeof(float), stream, task);
  if (krylov_bytes<true>(task) <= limit)
    launch_krylov<true>(task, stream);
  else
    launch_krylov<false>(task, stream);
  launch("rotation_elimination", rotation_elimination_kernel, {plan.slots, 1}, CAYLEY_THREADS, eliminating, stream, task,
         plan.matrices);
  launch("rotation_finish", rotation_finish_kernel, {1, 1}, CAYLEY_THREADS, (CAYLEY_WARPS + 1) * sizeof(double), stream,
         task);
}

}  // namespace cuda
}  // namespace ciss
