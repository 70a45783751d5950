// ciss_fast._native.cayley_rotate: dense arrays of float or double come as addresses.
#include "cpu/cayley_rotate.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace ciss {

void bind_cayley_rotate(py::module_& module) {
  module.attr("SOLVED_DIRECTLY") = SOLVED_DIRECTLY;
  module.def(
      "cayley_rotate",
      [](uintptr_t params, uintptr_t right_sides, int sign, uintptr_t rotated, uintptr_t solutions,
         uintptr_t forward_solutions, uintptr_t grad_params, uintptr_t iterations, int64_t classes, int64_t vectors,
         int64_t dimension, bool double_precision, int threads) {
        CayleyTask task;
        task.classes = classes;
        task.vectors = vectors;
        task.dimension = dimension;
        task.params = reinterpret_cast<const void*>(params);
        task.right_sides = reinterpret_cast<const void*>(right_sides);
        task.sign = sign;
        task.rotated = reinterpret_cast<void*>(rotated);
        task.solutions = reinterpret_cast<void*>(solutions);
        task.forward_solutions = reinterpret_cast<const void*>(forward_solutions);
        task.grad_params = reinterpret_cast<void*>(grad_params);
        CayleyFailure failure;
        {
          py::gil_scoped_release release;
          failure = cayley_rotate(task, double_precision, reinterpret_cast<int32_t*>(iterations), threads);
        }
        return py::make_tuple(failure.item, failure.error, failure.accepted);
      },
      py::arg("params"), py::arg("right_sides"), py::arg("sign"), py::arg("rotated"), py::arg("solutions"),
      py::arg("forward_solutions"), py::arg("grad_params"), py::arg("iterations"), py::arg("classes"),
      py::arg("vectors"), py::arg("dimension"), py::arg("double_precision"), py::arg("threads"));
}

}  // namespace ciss
