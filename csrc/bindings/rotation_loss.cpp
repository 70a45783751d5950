// ciss_fast._native.rotation_loss: dense arrays of float or double come as addresses.
#include "cpu/rotation_loss.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace ciss {
namespace {

py::tuple rotation_loss_of_tensors(uintptr_t params, uintptr_t previous, uintptr_t current, uintptr_t weight,
                                   uintptr_t bias, uintptr_t grad_params, uintptr_t products, int64_t classes,
                                   int64_t groups, int64_t dimension, int64_t outputs, double fidelity_weight,
                                   bool double_precision, int threads) {
  RotationTask task;
  task.rotations.classes = classes;
  task.rotations.vectors = groups;
  task.rotations.dimension = dimension;
  task.rotations.params = reinterpret_cast<const void*>(params);
  task.rotations.grad_params = reinterpret_cast<void*>(grad_params);
  task.outputs = outputs;
  task.previous = reinterpret_cast<const void*>(previous);
  task.current = reinterpret_cast<const void*>(current);
  task.weight = reinterpret_cast<const void*>(weight);
  task.bias = reinterpret_cast<const void*>(bias);
  task.fidelity_weight = fidelity_weight;
  RotationResult result;
  {
    py::gil_scoped_release release;
    result = rotation_loss(task, double_precision, reinterpret_cast<int32_t*>(products), threads);
  }
  return py::make_tuple(result.fidelity, result.regulariser, result.inaccurate, result.error, result.accepted);
}

}  // namespace

void bind_rotation_loss(py::module_& module) {
  module.def("rotation_loss", &rotation_loss_of_tensors, py::arg("params"), py::arg("previous"), py::arg("current"),
             py::arg("weight"), py::arg("bias"), py::arg("grad_params"), py::arg("products"), py::arg("classes"),
             py::arg("groups"), py::arg("dimension"), py::arg("outputs"), py::arg("fidelity_weight"),
             py::arg("double_precision"), py::arg("threads"));
}

}  // namespace ciss
