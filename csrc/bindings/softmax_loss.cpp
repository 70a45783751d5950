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
  const bool align_corners = keywords.take<bool>("align_corners");
  const bool double_precision = keywords.take<bool>("double_precision");
  const bool check_labels = keywords.take<bool>("check_labels");
  const int threads = keywords.take<int>("threads");
  keywords.finish();

  SoftmaxResult result;
  {
    py::gil_scoped_release release;
    result = softmax_loss(task, align_corners, double_precision, check_labels, threads);
  }
  py::dict out;
  out["total"] = result.total;
  out["values"] = std::vector<double>(result.value, result.value + TERM_COUNT);
  out["pixels"] = std::vector<int64_t>(result.pixels, result.pixels + REGION_COUNT);
  out["invalid_labels"] = result.invalid_labels;
  out["first_invalid"] =
      py::make_tuple(result.first_invalid_image, result.first_invalid_row, result.first_invalid_column);
  return out;
}

}  // namespace

void bind_softmax_loss(py::module_& module) { module.def("softmax_loss", &softmax_loss_of_tensors); }

}  // namespace ciss
