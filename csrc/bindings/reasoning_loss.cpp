// ciss_fast._native.reasoning_loss: dense arrays of scores come as addresses.
#include "cpu/reasoning_loss.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

namespace py = pybind11;

namespace ciss {
namespace {

// One coefficient for each term; see ScoreRuns.
std::vector<double> reasoning_loss_of_scores(uintptr_t student, uintptr_t teacher, int64_t count, int64_t run_length,
                                             const std::vector<double>& coefficients, bool need_gradient,
                                             bool double_precision, int threads) {
  if (coefficients.empty() || coefficients.size() > MOST_REASONING_TERMS)
    throw py::value_error("coefficients: expected one or two");
  ScoreRuns task;
  task.student = reinterpret_cast<void*>(student);
  task.teacher = reinterpret_cast<const void*>(teacher);
  task.count = count;
  task.run_length = run_length;
  task.terms = int(coefficients.size());
  task.need_gradient = need_gradient;
  std::copy(coefficients.begin(), coefficients.end(), task.coefficient);
  py::gil_scoped_release release;
  return score_cross_entropy(task, double_precision, threads);
}

}  // namespace

void bind_reasoning_loss(py::module_& module) {
  module.def("reasoning_loss", &reasoning_loss_of_scores, py::arg("student"), py::arg("teacher"), py::arg("count"),
             py::arg("run_length"), py::arg("coefficients"), py::arg("need_gradient"), py::arg("double_precision"),
             py::arg("threads"));
}

}  // namespace ciss
