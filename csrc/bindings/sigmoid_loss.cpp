// ciss_fast._native.sigmoid_loss: tensors come as (address, type, strides), see csrc/cpu/elements.h for the types.
#include "cpu/sigmoid_loss.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "tensor_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

// sizes: batch, classes (channels of the student), old_classes, height, width, label_height, label_width
py::dict sigmoid_loss_of_tensors(uintptr_t student, int student_type, const Strides& student_strides,
                                 uintptr_t teacher, int teacher_type, const Strides& teacher_strides,
                                 uintptr_t label, int label_type, const Strides& label_strides, uintptr_t gradient,
                                 const Strides& gradient_strides, const std::vector<int64_t>& sizes,
                                 const std::vector<double>& weights, double pos_weight, int64_t ignore_index,
                                 bool align_corners, bool double_precision, bool check_labels, int threads) {
  SigmoidTask task;
  task.batch = sizes[0];
  task.classes = sizes[1];
  task.old_classes = sizes[2];
  task.height = sizes[3];
  task.width = sizes[4];
  task.label_height = sizes[5];
  task.label_width = sizes[6];
  task.student = logits_view(student, student_type, student_strides);
  if (teacher) task.teacher = logits_view(teacher, teacher_type, teacher_strides);
  task.label = label_view(label, label_type, label_strides);
  if (gradient)
    task.gradient = {reinterpret_cast<void*>(gradient), gradient_strides[0], gradient_strides[1], gradient_strides[2],
                     gradient_strides[3]};
  for (int t = 0; t < SIGMOID_TERM_COUNT; t++) task.weight[t] = weights[size_t(t)];
  task.positive_weight = pos_weight;
  task.ignore_index = ignore_index;

  SigmoidResult result;
  {
    py::gil_scoped_release release;
    result = sigmoid_loss(task, align_corners, double_precision, check_labels, threads);
  }
  py::dict out;
  out["total"] = result.total;
  out["values"] = std::vector<double>(result.value, result.value + SIGMOID_TERM_COUNT);
  out["invalid_labels"] = result.invalid_labels;
  out["first_invalid"] =
      py::make_tuple(result.first_invalid_image, result.first_invalid_row, result.first_invalid_column);
  return out;
}

}  // namespace

void bind_sigmoid_loss(py::module_& module) {
  module.def("sigmoid_loss", &sigmoid_loss_of_tensors, py::arg("student"), py::arg("student_type"),
             py::arg("student_strides"), py::arg("teacher"), py::arg("teacher_type"), py::arg("teacher_strides"),
             py::arg("label"), py::arg("label_type"), py::arg("label_strides"), py::arg("gradient"),
             py::arg("gradient_strides"), py::arg("sizes"), py::arg("weights"), py::arg("pos_weight"),
             py::arg("ignore_index"), py::arg("align_corners"), py::arg("double_precision"), py::arg("check_labels"),
             py::arg("threads"));
}

}  // namespace ciss
