// ciss_fast._native.softmax_loss: tensors come as (address, type, strides), see csrc/core/elements.h for the types.
#include "cpu/softmax_loss.h"

#include "loss_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

py::dict softmax_loss_of_tensors(const py::kwargs& arguments) {
  Keywords keywords(arguments);
  SoftmaxTask task;
  take_maps(keywords, task);
  task.settings = take_softmax_settings(keywords);
  const SoftmaxResult result = run_on_cpu(keywords, task, softmax_loss);
  py::dict out = results_of(result);
  out["pixels"] = std::vector<int64_t>(std::begin(result.pixels), std::end(result.pixels));
  return out;
}

}  // namespace

void bind_softmax_loss(py::module_& module) { module.def("softmax_loss", &softmax_loss_of_tensors); }

}  // namespace ciss
