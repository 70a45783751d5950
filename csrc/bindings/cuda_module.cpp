// The Python module ciss_fast._cuda: launches of the CUDA kernels. It knows nothing of torch: tensors come as (address,
// type, strides), see csrc/core/elements.h for the types, and the stream as an address. It holds CUDA's runtime and can be
// imported where there is no driver.
#include "cuda/cayley_rotate.h"
#include "cuda/rotation_loss.h"
#include "cuda/sigmoid_loss.h"
#include "cuda/softmax_loss.h"
#include "cuda/versions.h"
#include "loss_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

// `workspace`: a function from a number of bytes to the address of so many bytes on the device.
void* take_memory(const py::function& workspace, size_t bytes) {
  return reinterpret_cast<void*>(workspace(bytes).cast<uintptr_t>());
}

void softmax_loss_of_tensors(const py::kwargs& arguments) {
  Keywords keywords(arguments);
  cuda::SoftmaxTask task;
  take_maps(keywords, task);
  task.settings = take_softmax_settings(keywords);
  const bool align_corners = keywords.take<bool>("align_corners");
  const cuda::SoftmaxResults results{keywords.take_address<float>("total"), keywords.take_address<float>("values"),
                                     keywords.take_address<int64_t>("pixels")};
  const py::function workspace = keywords.take<py::function>("workspace");
  void* const stream = keywords.take_address<void>("stream");
  keywords.finish();
  void* const memory = take_memory(workspace, cuda::softmax_workspace_bytes(task, align_corners));
  cuda::softmax_loss(task, align_corners, results, memory, stream);
}

void sigmoid_loss_of_tensors(const py::kwargs& arguments) {
  Keywords keywords(arguments);
  cuda::SigmoidTask task;
  take_maps(keywords, task);
  take_sigmoid_settings(keywords, task);
  const bool align_corners = keywords.take<bool>("align_corners");
  const cuda::SigmoidResults results{keywords.take_address<float>("total"), keywords.take_address<float>("values")};
  const py::function workspace = keywords.take<py::function>("workspace");
  void* const stream = keywords.take_address<void>("stream");
  keywords.finish();
  void* const memory = take_memory(workspace, cuda::sigmoid_workspace_bytes(task, align_corners));
  cuda::sigmoid_loss(task, align_corners, results, memory, stream);
}

void cayley_rotate_of_tensors(uintptr_t params, uintptr_t right_sides, int sign, uintptr_t rotated, uintptr_t solutions,
                              uintptr_t forward_solutions, uintptr_t grad_params, uintptr_t iterations, int64_t classes,
                              int64_t vectors, int64_t dimension, const py::function& workspace, uintptr_t stream) {
  cuda::CayleyTask task;
  task.classes = classes;
  task.vectors = vectors;
  task.dimension = dimension;
  task.params = reinterpret_cast<const float*>(params);
  task.right_sides = reinterpret_cast<const float*>(right_sides);
  task.sign = sign;
  task.rotated = reinterpret_cast<float*>(rotated);
  task.solutions = reinterpret_cast<float*>(solutions);
  task.forward_solutions = reinterpret_cast<const float*>(forward_solutions);
  task.grad_params = reinterpret_cast<float*>(grad_params);
  task.iterations = reinterpret_cast<int32_t*>(iterations);
  void* const memory = take_memory(workspace, cuda::cayley_workspace_bytes(task));
  cuda::cayley_rotate(task, memory, reinterpret_cast<void*>(stream));
}

void rotation_loss_of_tensors(uintptr_t params, uintptr_t previous, uintptr_t current, uintptr_t weight, uintptr_t bias,
                              uintptr_t grad_params, uintptr_t products, uintptr_t total, uintptr_t values,
                              int64_t classes, int64_t groups, int64_t dimension, int64_t outputs,
                              double fidelity_weight, const py::function& workspace, uintptr_t stream) {
  cuda::RotationTask task;
  task.rotations.classes = classes;
  task.rotations.vectors = groups;
  task.rotations.dimension = dimension;
  task.rotations.params = reinterpret_cast<const float*>(params);
  task.rotations.grad_params = reinterpret_cast<float*>(grad_params);
  task.rotations.iterations = reinterpret_cast<int32_t*>(products);
  task.outputs = outputs;
  task.previous = reinterpret_cast<const float*>(previous);
  task.current = reinterpret_cast<const float*>(current);
  task.weight = reinterpret_cast<const float*>(weight);
  task.bias = reinterpret_cast<const float*>(bias);
  task.fidelity_weight = fidelity_weight;
  task.total = reinterpret_cast<float*>(total);
  task.values = reinterpret_cast<float*>(values);
  void* const memory = take_memory(workspace, cuda::rotation_workspace_bytes(task));
  cuda::rotation_loss(task, memory, reinterpret_cast<void*>(stream));
}

}  // namespace
}  // namespace ciss

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of ciss_fast";
#if defined(CISS_CUDA_VERSION)
  module.attr("compiler") = "nvcc " CISS_CUDA_VERSION;
  module.attr("architectures") = CISS_CUDA_ARCHITECTURES;
#else  // no CUDA compiler: kernels run on the CPU, see csrc/cuda/emulation
  module.attr("compiler") = "emulation";
  module.attr("architectures") = "";
#endif
  module.def("runtime_version", &ciss::cuda::runtime_version);
  module.def("driver_version", &ciss::cuda::driver_version);
  module.def("softmax_loss", &ciss::softmax_loss_of_tensors);
  module.def("sigmoid_loss", &ciss::sigmoid_loss_of_tensors);
  module.def("cayley_rotate", &ciss::cayley_rotate_of_tensors, py::arg("params"), py::arg("right_sides"),
             py::arg("sign"), py::arg("rotated"), py::arg("solutions"), py::arg("forward_solutions"),
             py::arg("grad_params"), py::arg("iterations"), py::arg("classes"), py::arg("vectors"),
             py::arg("dimension"), py::arg("workspace"), py::arg("stream"));
  module.def("rotation_loss", &ciss::rotation_loss_of_tensors, py::arg("params"), py::arg("previous"),
             py::arg("current"), py::arg("weight"), py::arg("bias"), py::arg("grad_params"), py::arg("products"),
             py::arg("total"), py::arg("values"), py::arg("classes"), py::arg("groups"), py::arg("dimension"),
             py::arg("outputs"), py::arg("fidelity_weight"), py::arg("workspace"), py::arg("stream"));
}
