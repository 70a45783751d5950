// Launches of softmax_loss.
#include "softmax_loss.h"

#include "softmax_cells.cuh"
#include "softmax_pixels.cuh"
#include "softmax_prepare.cuh"
#include "upload.cuh"
#include "workspace.h"

namespace ciss {
namespace cuda {
namespace {

bool at_label_size(const SoftmaxTask& task) {
  return task.height == task.label_height && task.width == task.label_width;
}

// The memory of a call; `plan` with no memory says how much it is.
struct Plan {
  SoftmaxFlags flags;
  SoftmaxLayout layout;
  AxisNumbers rows, columns;
  Workspace memory;
  int64_t lines, cells;
  int32_t *counts, *not_finite, *exact = nullptr;
  DeviceCoefficients* coefficients;
  char* geometry = nullptr;
  float *table = nullptr, *partial = nullptr, *sums;
  double* chunks;

  Plan(const SoftmaxTask& task, bool align_corners, void* base)
      : flags(task.settings, task.teacher.data != nullptr),
        layout(task.classes, task.old_classes, flags.teacher, flags.ckd),
        rows({task.height, task.label_height, align_corners}),
        columns({task.width, task.label_width, align_corners}),
        memory{static_cast<char*>(base)},
        lines(task.batch * task.label_height) {
    counts = memory.take<int32_t>(lines * COUNTS);
    not_finite = memory.take<int32_t>(1);
    coefficients = memory.take<DeviceCoefficients>(1);
    chunks = memory.take<double>(SUM_POISON * SUM_CHUNKS);
    SoftmaxPixels pixels;
    pixels.task = task;
    const bool enlarged = !at_label_size(task);
    cells = enlarged ? task.batch * rows.table.pieces * columns.table.pieces : pixels.blocks();
    sums = memory.take<float>(SUM_POISON * cells);
    if (!enlarged) return;
    geometry = memory.take<char>(int64_t(rows.bytes() + columns.bytes()));
    table = memory.take<float>(task.batch * task.height * task.width * layout.positions());
    exact = memory.take<int32_t>(cells);
    if (task.gradient.data) partial = memory.take<float>(cells * CORNERS * layout.student_positions());
  }
};

template <int RUN, Form FORM>
void launch_cells(const SoftmaxCells& all, Stream stream) {
  const size_t bytes = SoftmaxCell<RUN, FORM>::shared_bytes(all.layout), limit = largest_shared_memory();
  if (bytes > limit)
    throw std::runtime_error("softmax_loss: expected classes that fit into " + std::to_string(limit) +
                             " bytes of shared memory, got " + std::to_string(all.layout.classes) + ", which take " +
                             std::to_string(bytes));
  launch(FORM == EXACT ? "softmax_cells_exact" : "softmax_cells", softmax_cells_kernel<RUN, FORM>,
         {all.cells.count(), 1}, WARP, bytes, stream, all);
}

template <int RUN>
void launch_forms(SoftmaxCells all, Stream stream) {
  if (all.flags.focal)
    all.exact = nullptr;  // has targets that depend on the logits of single pixels
  else
    launch_cells<RUN, GEOMETRIC>(all, stream);
  launch_cells<RUN, EXACT>(all, stream);
}

void run_cells(const SoftmaxTask& task, const Plan& plan, Stream stream) {
  SoftmaxCells all;
  std::vector<char> geometry;
  all.cells.rows = plan.rows.append(geometry, plan.geometry);
  all.cells.columns = plan.columns.append(geometry, plan.geometry);
  all.cells.batch = task.batch;
  upload(plan.geometry, geometry.data(), geometry.size(), stream);
  const int64_t tiles = (task.width + TABLE_TILE - 1) / TABLE_TILE;
  launch("softmax_table", softmax_table_kernel, {task.batch * task.height * tiles, 1}, WARP * TABLE_WARPS,
         TABLE_SHARED_BYTES, stream, SoftmaxTable{task, plan.layout, plan.table, plan.not_finite});
  all.task = task;
  all.flags = plan.flags;
  all.layout = plan.layout;
  all.coefficients = plan.coefficients;
  all.table = plan.table;
  all.partial = plan.partial;
  all.sums = plan.sums;
  all.exact = plan.exact;
  const int run = all.cells.columns.run;
  run <= 1 ? launch_forms<1>(all, stream)
  : run <= 2 ? launch_forms<2>(all, stream)
  : run <= 4 ? launch_forms<4>(all, stream)
             : launch_forms<8>(all, stream);
  add_chunks(plan.sums, SUM_POISON, plan.cells, plan.chunks, stream);
  if (task.gradient.data)
    gather(all.cells, plan.partial, plan.layout.student_positions(), StudentPosition{plan.layout}, task.classes,
           plan.not_finite, task.gradient, stream);
}

void run_pixels(const SoftmaxTask& task, const Plan& plan, Stream stream) {
  const SoftmaxPixels all{task, plan.flags, plan.coefficients, plan.sums, plan.not_finite};
  launch("softmax_pixels", softmax_pixels_kernel, {all.blocks(), 1}, PIXEL_THREADS,
         PIXEL_THREADS / WARP * sizeof(float), stream, all);
  add_chunks(plan.sums, SUM_POISON, plan.cells, plan.chunks, stream);
  if (task.gradient.data)
    poison(task.gradient, task.batch, task.classes, task.height, task.width, plan.not_finite, stream);
}

}  // namespace

size_t softmax_workspace_bytes(const SoftmaxTask& task, bool align_corners) {
  return Plan(task, align_corners, nullptr).memory.used;
}

void softmax_loss(const SoftmaxTask& task, bool align_corners, const SoftmaxResults& results, void* workspace,
                  void* stream_address) {
  const Stream stream = static_cast<Stream>(stream_address);
  const Plan plan(task, align_corners, workspace);
  check(cudaMemsetAsync(plan.not_finite, 0, sizeof(int32_t), stream), "cudaMemsetAsync");
  launch("softmax_count", softmax_count_kernel, {plan.lines, 1}, COUNT_THREADS, COUNT_THREADS / WARP * sizeof(int),
         stream, task, plan.counts);
  launch("softmax_coefficients", softmax_coefficients_kernel, {1, 1}, COEFFICIENT_THREADS,
         COEFFICIENT_THREADS / WARP * sizeof(int64_t), stream, task, static_cast<const int32_t*>(plan.counts),
         plan.lines, results.pixels, plan.coefficients);
  at_label_size(task) ? run_pixels(task, plan, stream) : run_cells(task, plan, stream);
  launch("softmax_finish", softmax_finish_kernel, {1, 1}, WARP, SUM_COUNT * sizeof(double), stream, task,
         static_cast<const double*>(plan.chunks), static_cast<const DeviceCoefficients*>(plan.coefficients),
         static_cast<const int32_t*>(plan.not_finite), results.total, results.values);
}

}  // namespace cuda
}  // namespace ciss
