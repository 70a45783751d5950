// ciss_fast._native.predict and .confusion: tensors come as (address, type, strides), see csrc/core/elements.h.
#include "cpu/label_map.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "tensor_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

// sizes: batch, classes, height, width, label_height, label_width
LabelMapTask task_of(uintptr_t logits, int type, const Strides& strides, const std::vector<int64_t>& sizes,
                     bool background_is_zero) {
  LabelMapTask task;
  task.classes = sizes[1];
  task.height = sizes[2];
  task.width = sizes[3];
  task.label_height = sizes[4];
  task.label_width = sizes[5];
  task.logits = logits_view(logits, type, strides);
  task.background_is_zero = background_is_zero;
  return task;
}

}  // namespace

void bind_label_map(py::module_& module) {
  module.def(
      "predict",
      [](uintptr_t logits, int type, const Strides& strides, const std::vector<int64_t>& sizes, bool background_is_zero,
         bool align_corners, uintptr_t labels, int label_type, int threads) {
        const LabelMapTask task = task_of(logits, type, strides, sizes, background_is_zero);
        py::gil_scoped_release release;
        predict(task, sizes[0], align_corners, FloatType(type) == FloatType::float64, reinterpret_cast<void*>(labels),
                LabelType(label_type), threads);
      },
      py::arg("logits"), py::arg("logits_type"), py::arg("logits_strides"), py::arg("sizes"),
      py::arg("background_is_zero"), py::arg("align_corners"), py::arg("labels"), py::arg("label_type"),
      py::arg("threads"));
  module.def(
      "confusion",
      [](uintptr_t logits, int type, const Strides& strides, const std::vector<int64_t>& sizes, bool background_is_zero,
         bool align_corners, uintptr_t label, int label_type, const Strides& label_strides, int64_t ignore_index,
         int64_t num_classes, uintptr_t counts, int threads) {
        const LabelMapTask task = task_of(logits, type, strides, sizes, background_is_zero);
        const LabelView view = label_view(label, label_type, label_strides);
        ConfusionResult result;
        {
          py::gil_scoped_release release;
          result = confusion(task, sizes[0], align_corners, FloatType(type) == FloatType::float64, view, ignore_index,
                             num_classes, reinterpret_cast<int64_t*>(counts), threads);
        }
        py::dict out;
        out["invalid_labels"] = result.invalid_labels;
        out["first_invalid"] =
            py::make_tuple(result.first_invalid_image, result.first_invalid_row, result.first_invalid_column);
        return out;
      },
      py::arg("logits"), py::arg("logits_type"), py::arg("logits_strides"), py::arg("sizes"),
      py::arg("background_is_zero"), py::arg("align_corners"), py::arg("label"), py::arg("label_type"),
      py::arg("label_strides"), py::arg("ignore_index"), py::arg("num_classes"), py::arg("counts"), py::arg("threads"));
}

}  // namespace ciss
