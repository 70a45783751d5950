// Launches of sigmoid_loss.
#include "sigmoid_loss.h"

#include "sigmoid_cells.cuh"
#include "sigmoid_pixels.cuh"
#include "upload.cuh"
#include "workspace.h"

namespace ciss {
namespace cuda {
namespace {

// The memory of a call; with no memory it says how much that is.
struct Plan {
  SigmoidLayout layout;
  AxisNumbers rows, columns;
  Workspace memory;
  bool enlarged;
  int64_t items;  // numbers in a row of `sums`: cells, or blocks of pixels
  int sum_rows;
  int32_t *not_finite, *shown = nullptr;
  char* geometry = nullptr;
  size_t geometry_bytes;
  float *table = nullptr, *partial = nullptr, *sums;
  double* chunks;

  Plan(const SigmoidTask& task, bool align_corners, void* base)
      : layout(task), rows({task.height, task.label_height, align_corners}),
        columns({task.width, task.label_width, align_corners}), memory{static_cast<char*>(base)},
        enlarged(task.height != task.label_height || task.width != task.label_width) {
    SigmoidPixels pixels;
    pixels.task = task;
    items = enlarged ? task.batch * rows.table.pieces * columns.table.pieces : pixels.blocks();
    sum_rows = enlarged ? layout.groups() + 1 : int(SIGMOID_TERM_COUNT);
    geometry_bytes = rows.bytes() + rows.rule_sets.bytes() + columns.bytes() + columns.rule_sets.bytes();
    not_finite = memory.take<int32_t>(1);
    chunks = memory.take<double>(sum_rows * SUM_CHUNKS);
    sums = memory.take<float>(sum_rows * items);
    if (!enlarged) return;
    geometry = memory.take<char>(int64_t(geometry_bytes));
    table = memory.take<float>(task.batch * task.height * task.width * layout.positions());
    if (layout.fresh) shown = memory.take<int32_t>(items);
    if (task.gradient.data) partial = memory.take<float>(items * CORNERS * layout.student_positions());
  }

  // Which rows of `sums` belong to which term.
  SigmoidRows term_rows() const {
    SigmoidRows r;
    if (!enlarged) {
      for (int t = 0; t < SIGMOID_TERM_COUNT; t++) r.first[t] = t, r.end[t] = t + 1;
      return r;
    }
    const int groups = layout.groups(), distilled = layout.distilled_positions() / WARP;
    r.end[SIGMOID_KD] = distilled;
    r.first[MBCE] = distilled;
    r.end[MBCE] = groups;
    r.first[AC] = groups;
    r.end[AC] = groups + layout.auxiliary;
    return r;
  }
};

void run_cells(const SigmoidTask& task, const Plan& plan, Stream stream) {
  SigmoidCells all;
  std::vector<char> geometry;
  all.cells.rows = plan.rows.append(geometry, plan.geometry);
  all.cells.columns = plan.columns.append(geometry, plan.geometry);
  all.cells.batch = task.batch;
  all.row_rules = plan.rows.rule_sets.append_to(geometry, plan.geometry);
  all.column_rules = plan.columns.rule_sets.append_to(geometry, plan.geometry);
  upload(plan.geometry, geometry.data(), geometry.size(), stream);
  const int64_t tiles = (task.width + SIGMOID_TILE - 1) / SIGMOID_TILE;
  launch("sigmoid_table", sigmoid_table_kernel, {task.batch * task.height * tiles, plan.layout.distilled ? 2 : 1},
         WARP * SIGMOID_TILE_WARPS, SIGMOID_TILE * (SIGMOID_TILE + 1) * sizeof(float), stream, task, plan.layout,
         plan.table, plan.not_finite);
  if (plan.shown)
    launch("sigmoid_survey", sigmoid_survey_kernel, {plan.items, 1}, WARP, 0, stream, task, all.cells, plan.shown);
  all.task = task;
  all.layout = plan.layout;
  all.table = plan.table;
  all.partial = plan.partial;
  all.sums = plan.sums;
  all.shown = plan.shown;
  launch("sigmoid_cells", sigmoid_cells_kernel, {plan.items, plan.layout.groups()}, WARP, SigmoidCell::SHARED_BYTES,
         stream, all);
  if (task.gradient.data)
    gather(all.cells, plan.partial, plan.layout.student_positions(), plan.layout, task.classes, plan.not_finite,
           task.gradient, stream);
}

void run_pixels(const SigmoidTask& task, const Plan& plan, Stream stream) {
  const SigmoidPixels all{task, plan.sums, plan.not_finite};
  launch("sigmoid_pixels", sigmoid_pixels_kernel, {all.blocks(), 1}, SIGMOID_PIXEL_THREADS,
         SIGMOID_PIXEL_THREADS / WARP * sizeof(float), stream, all);
  if (task.gradient.data)
    poison(task.gradient, task.batch, task.classes, task.height, task.width, plan.not_finite, stream);
}

}  // namespace

size_t sigmoid_workspace_bytes(const SigmoidTask& task, bool align_corners) {
  return Plan(task, align_corners, nullptr).memory.used;
}

void sigmoid_loss(const SigmoidTask& task, bool align_corners, const SigmoidResults& results, void* workspace,
                  void* stream_address) {
  const Stream stream = static_cast<Stream>(stream_address);
  const Plan plan(task, align_corners, workspace);
  check(cudaMemsetAsync(plan.not_finite, 0, sizeof(int32_t), stream), "cudaMemsetAsync");
  plan.enlarged ? run_cells(task, plan, stream) : run_pixels(task, plan, stream);
  add_chunks(plan.sums, plan.sum_rows, plan.items, plan.chunks, stream);
  launch("sigmoid_finish", sigmoid_finish_kernel, {1, 1}, WARP, 0, stream, task,
         static_cast<const double*>(plan.chunks), plan.term_rows(), static_cast<const int32_t*>(plan.not_finite),
         results.total, results.values);
}

}  // namespace cuda
}  // namespace ciss
