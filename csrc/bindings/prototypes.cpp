// ciss_fast._native.prototypes: tensors come as (address, type, strides), see csrc/core/elements.h.
#include "cpu/prototypes.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "tensor_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

// The last two strides are those of the vectors and of their elements.
VectorsView vectors_view(uintptr_t address, int type, const Strides& s) {
  return {reinterpret_cast<const void*>(address), FloatType(type), s[s.size() - 2], s[s.size() - 1]};
}

}  // namespace

void bind_prototypes(py::module_& module) {
  module.def(
      "prototypes",
      [](uintptr_t feature_prev, int feature_prev_type, const Strides& feature_prev_strides, uintptr_t feature_curr,
         int feature_curr_type, const Strides& feature_curr_strides, uintptr_t memory, int memory_type,
         const Strides& memory_strides, const std::vector<int64_t>& sizes, double temperature, bool double_precision,
         uintptr_t prototype_prev, uintptr_t prototype_curr, uintptr_t log_sum, int threads) {
        PrototypesTask task;
        task.positions = sizes[0];
        task.classes = sizes[1];
        task.per_class = sizes[2];
        task.dimension = sizes[3];
        task.feature_prev = vectors_view(feature_prev, feature_prev_type, feature_prev_strides);
        task.feature_curr = vectors_view(feature_curr, feature_curr_type, feature_curr_strides);
        task.memory = vectors_view(memory, memory_type, memory_strides);
        task.memory_class_stride = memory_strides[0];
        task.temperature = temperature;
        py::gil_scoped_release release;
        prototypes(task, double_precision, reinterpret_cast<void*>(prototype_prev),
                   reinterpret_cast<void*>(prototype_curr), reinterpret_cast<double*>(log_sum), threads);
      },
      py::arg("feature_prev"), py::arg("feature_prev_type"), py::arg("feature_prev_strides"), py::arg("feature_curr"),
      py::arg("feature_curr_type"), py::arg("feature_curr_strides"), py::arg("memory"), py::arg("memory_type"),
      py::arg("memory_strides"), py::arg("sizes"), py::arg("temperature"), py::arg("double_precision"),
      py::arg("prototype_prev"), py::arg("prototype_curr"), py::arg("log_sum"), py::arg("threads"));
}

}  // namespace ciss
