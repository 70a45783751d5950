// ciss_fast._native.sigmoid_loss: tensors come as (address, type, strides), see csrc/core/elements.h for the types.
#include "cpu/sigmoid_loss.h"

#include "loss_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

py::dict sigmoid_loss_of_tensors(const py::kwargs& arguments) {
  Keywords keywords(arguments);
  SigmoidTask task;
  take_maps(keywords, task);
  take_sigmoid_settings(keywords, task);
  return results_of(run_on_cpu(keywords, task, sigmoid_loss));
}

}  // namespace

void bind_sigmoid_loss(py::module_& module) { module.def("sigmoid_loss", &sigmoid_loss_of_tensors); }

}  // namespace ciss
