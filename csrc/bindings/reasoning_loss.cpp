// ciss_fast._native.reasoning_loss: maps come as (address, type, strides), see csrc/core/elements.h for the types;
// weights and their gradient as addresses of dense matrices of the arithmetic's type.
#include "cpu/reasoning_loss.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "tensor_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

// sizes: batch, height, width, classes, channels, channels_old
py::dict reasoning_loss_of_tensors(uintptr_t feature, int feature_type, const Strides& feature_strides,
                                   uintptr_t feature_old, int feature_old_type, const Strides& feature_old_strides,
                                   uintptr_t weight, uintptr_t weight_old, uintptr_t gradient,
                                   const Strides& gradient_strides, uintptr_t weight_gradient,
                                   const std::vector<int64_t>& sizes, const std::vector<double>& weights,
                                   bool double_precision, int threads) {
  ReasoningArguments arguments;
  arguments.batch = sizes[0];
  arguments.height = sizes[1];
  arguments.width = sizes[2];
  arguments.classes = sizes[3];
  arguments.channels = sizes[4];
  arguments.channels_old = sizes[5];
  arguments.feature = logits_view(feature, feature_type, feature_strides);
  arguments.feature_old = logits_view(feature_old, feature_old_type, feature_old_strides);
  arguments.weight = reinterpret_cast<const void*>(weight);
  arguments.weight_old = reinterpret_cast<const void*>(weight_old);
  if (gradient)
    arguments.gradient = {reinterpret_cast<void*>(gradient), gradient_strides[0], gradient_strides[1],
                          gradient_strides[2], gradient_strides[3]};
  arguments.weight_gradient = reinterpret_cast<void*>(weight_gradient);
  for (size_t t = 0; t < 2; t++) arguments.term_weight[t] = weights[t];
  arguments.double_precision = double_precision;

  ReasoningResult result;
  {
    py::gil_scoped_release release;
    result = reasoning_loss(arguments, threads);
  }
  py::dict out;
  out["total"] = result.total;
  out["values"] = std::vector<double>(result.value, result.value + 2);
  return out;
}

}  // namespace

void bind_reasoning_loss(py::module_& module) {
  module.def("reasoning_loss", &reasoning_loss_of_tensors, py::arg("feature"), py::arg("feature_type"),
             py::arg("feature_strides"), py::arg("feature_old"), py::arg("feature_old_type"),
             py::arg("feature_old_strides"), py::arg("weight"), py::arg("weight_old"), py::arg("gradient"),
             py::arg("gradient_strides"), py::arg("weight_gradient"), py::arg("sizes"), py::arg("weights"),
             py::arg("double_precision"), py::arg("threads"));
}

}  // namespace ciss
