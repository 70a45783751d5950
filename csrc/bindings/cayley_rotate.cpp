// ciss_fast._native.cayley_rotate: dense arrays of float or double come as addresses.
#include "cpu/cayley_rotate.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace ciss {
namespace {

// factors, factor_bytes: what the forward pass left, for the backward pass; not used if it is not of the right size.
// new_factors: None, or a function from a number of bytes to an address; called in the forward pass if some classes have
// to be solved directly, whose factors then go there.
py::tuple cayley_rotate_of_tensors(uintptr_t params, uintptr_t right_sides, int sign, uintptr_t rotated,
                                   uintptr_t solutions, uintptr_t forward_solutions, uintptr_t grad_params,
                                   uintptr_t iterations, uintptr_t forward_iterations, uintptr_t factors,
                                   size_t factor_bytes, const py::object& new_factors, int64_t classes,
                                   int64_t vectors, int64_t dimension, bool double_precision, int threads) {
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
  int32_t* const counts = reinterpret_cast<int32_t*>(iterations);
  const int32_t* const forward_counts = forward_iterations ? reinterpret_cast<const int32_t*>(forward_iterations) : counts;
  size_t wanted = 0;
  {
    py::gil_scoped_release release;
    cayley_iterate(task, double_precision, counts, threads);
    wanted = cayley_factor_bytes(task, double_precision, forward_counts);
  }
  if (!new_factors.is_none() && wanted) task.factors = reinterpret_cast<void*>(new_factors(wanted).cast<uintptr_t>());
  if (factors && factor_bytes == wanted) {
    task.factors = reinterpret_cast<void*>(factors);
    task.factors_ready = true;
  }
  CayleyFailure failure;
  {
    py::gil_scoped_release release;
    failure = cayley_eliminate(task, double_precision, counts, forward_counts, threads);
  }
  return py::make_tuple(failure.item, failure.error, failure.accepted);
}

}  // namespace

void bind_cayley_rotate(py::module_& module) {
  module.def("cayley_rotate", &cayley_rotate_of_tensors, py::arg("params"), py::arg("right_sides"), py::arg("sign"),
             py::arg("rotated"), py::arg("solutions"), py::arg("forward_solutions"), py::arg("grad_params"),
             py::arg("iterations"), py::arg("forward_iterations"), py::arg("factors"), py::arg("factor_bytes"),
             py::arg("new_factors"), py::arg("classes"), py::arg("vectors"), py::arg("dimension"),
             py::arg("double_precision"), py::arg("threads"));
}

}  // namespace ciss
