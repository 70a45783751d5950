// ciss_fast._native.score_cross_entropy: dense arrays of scores come as addresses.
#include "cpu/reasoning_loss.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

namespace py = pybind11;

namespace ciss {
namespace {

// student, teacher: as many ranges of `count` scores one after the other as there are coefficients.
std::vector<double> cross_entropy_of_arrays(uintptr_t student, uintptr_t teacher, int64_t count,
                                            const std::vector<double>& coefficients, bool need_gradient,
                                            bool double_precision, int threads) {
  const int64_t bytes = count * (double_precision ? 8 : 4);
  std::vector<ScoreRange> ranges(coefficients.size());
  for (size_t r = 0; r < ranges.size(); r++)
    ranges[r] = {reinterpret_cast<char*>(student) + int64_t(r) * bytes,
                 reinterpret_cast<const char*>(teacher) + int64_t(r) * bytes, count, need_gradient, coefficients[r]};
  py::gil_scoped_release release;
  return score_cross_entropy(ranges, double_precision, threads);
}

}  // namespace

void bind_reasoning_loss(py::module_& module) {
  module.def("score_cross_entropy", &cross_entropy_of_arrays, py::arg("student"), py::arg("teacher"), py::arg("count"),
             py::arg("coefficients"), py::arg("need_gradient"), py::arg("double_precision"), py::arg("threads"));
}

}  // namespace ciss
