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
  const bool align_corners = keywords.take<bool>("align_corners");
  const bool double_precision = keywords.take<bool>("double_precision");
  const bool check_labels = keywords.take<bool>("check_labels");
  const int threads = keywords.take<int>("threads");
  keywords.finish();

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

void bind_sigmoid_loss(py::module_& module) { module.def("sigmoid_loss", &sigmoid_loss_of_tensors); }

}  // namespace ciss
