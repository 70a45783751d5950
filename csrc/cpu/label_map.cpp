#include "label_map.h"

#include <mutex>
#include <vector>

#include "dispatch.h"
#include "enlargement.h"
#include "parallel.h"

namespace ciss {
namespace {

// Calls rows(image, strip, classes) with the largest classes of every strip of every image.
template <class Rows>
void for_each_strip(LabelMapTask& task, int64_t batch, bool align_corners, bool double_precision, int threads,
                    const Rows& rows) {
  if (batch * task.label_height * task.label_width == 0) return;
  const LabelMapKernels& kernels = *instruction_set().label_map;
  const Enlargement enlargement(task, align_corners);
  const std::vector<Strip>& strips = enlargement.strips;
  const int64_t count = int64_t(strips.size());
  const size_t workspace = (kernels.workspace_bytes(task, double_precision) + 63) / 64 * 64;
  const size_t classes_bytes = size_t(task.longest_strip * task.label_width) * sizeof(int32_t);
  parallel_for(batch * count, threads, [&](int64_t item) {
    char* memory = static_cast<char*>(thread_workspace(workspace + classes_bytes));
    int32_t* classes = reinterpret_cast<int32_t*>(memory + workspace);
    const Strip& strip = strips[size_t(item % count)];
    kernels.strip(task, item / count, strip, double_precision, memory, classes);
    rows(item / count, strip, classes);
  });
}

template <class Label>
void store(const int32_t* classes, int64_t count, Label* out) {
  for (int64_t i = 0; i < count; i++) out[i] = Label(classes[i]);
}

}  // namespace

void predict(LabelMapTask task, int64_t batch, bool align_corners, bool double_precision, void* labels,
             LabelType label_type, int threads) {
  const int64_t width = task.label_width, pixels = task.label_height * width;
  for_each_strip(task, batch, align_corners, double_precision, threads,
                 [&](int64_t image, const Strip& strip, const int32_t* classes) {
                   const int64_t start = image * pixels + strip.first_row * width;
                   if (label_type == LabelType::uint8)
                     store(classes, strip.rows * width, static_cast<uint8_t*>(labels) + start);
                   else
                     store(classes, strip.rows * width, static_cast<int64_t*>(labels) + start);
                 });
}

ConfusionResult confusion(LabelMapTask task, int64_t batch, bool align_corners, bool double_precision,
                          const LabelView& label, int64_t ignore_index, int64_t num_classes, int64_t* counts,
                          int threads) {
  const LabelMapKernels& kernels = *instruction_set().label_map;
  std::mutex mutex;
  ConfusionResult result;
  for_each_strip(task, batch, align_corners, double_precision, threads,
                 [&](int64_t image, const Strip& strip, const int32_t* classes) {
    std::vector<int32_t> row(size_t(task.label_width));
    std::vector<int64_t> strip_counts(size_t(num_classes * num_classes));
    ConfusionResult strip_result;
    for (int64_t r = 0; r < strip.rows; r++) {
      const int64_t y = strip.first_row + r;
      kernels.read_labels(label, image * label.batch_stride + y * label.row_stride, task.label_width, row.data());
      const int32_t* predicted = classes + r * task.label_width;
      for (int64_t x = 0; x < task.label_width; x++) {
        const int32_t truth = row[size_t(x)];
        if (truth == ignore_index) continue;
        if (truth >= 0 && truth < num_classes)
          strip_counts[size_t(truth * num_classes + predicted[x])]++;
        else if (strip_result.invalid_labels++ == 0)
          strip_result = {1, image, y, x};
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (size_t i = 0; i < strip_counts.size(); i++) counts[i] += strip_counts[i];  // integers: order is no matter
    if (strip_result.invalid_labels) {
      const bool earlier = !result.invalid_labels || image < result.first_invalid_image ||
                           (image == result.first_invalid_image && strip_result.first_invalid_row < result.first_invalid_row);
      strip_result.invalid_labels += result.invalid_labels;
      if (earlier)
        result = strip_result;
      else
        result.invalid_labels = strip_result.invalid_labels;
    }
  });
  return result;
}

}  // namespace ciss
