// The Python module ciss_fast._cuda: launches of the CUDA kernels. It knows nothing of torch: tensors come as (address,
// type, strides), see csrc/cpu/elements.h for the types, and the stream as an address. It holds CUDA's runtime and can be
// imported where there is no driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "cuda/cayley_rotate.h"
#include "cuda/rotation_loss.h"
#include "cuda/sigmoid_loss.h"
#include "cuda/softmax_loss.h"
#include "cuda/versions.h"
#include "tensor_arguments.h"

namespace py = pybind11;

namespace ciss {
namespace {

GradientView gradient_view(uintptr_t address, const Strides& s) {
  if (!address) return {};
  return {reinterpret_cast<void*>(address), s[0], s[1], s[2], s[3]};
}

// `workspace`: a function from a number of bytes to the address of so many bytes on the device.
void softmax_loss_of_tensors(uintptr_t student, int student_type, const Strides& student_strides, uintptr_t teacher,
                             int teacher_type, const Strides& teacher_strides, uintptr_t label, int label_type,
                             const Strides& label_strides, uintptr_t gradient, const Strides& gradient_strides,
                             const std::vector<int64_t>& sizes, const std::vector<double>& weights,
                             const std::vector<int>& averages, uint32_t kd_region, double alpha, int64_t ignore_index,
                             bool align_corners, uintptr_t total, uintptr_t values, uintptr_t pixels,
                             const py::function& workspace, uintptr_t stream) {
  cuda::SoftmaxTask task;
  task.batch = sizes[0];
  task.classes = sizes[1];
  task.old_classes = sizes[2];
  task.height = sizes[3];
  task.width = sizes[4];
  task.label_height = sizes[5];
  task.label_width = sizes[6];
  task.student = logits_view(student, student_type, student_strides);
  if (teacher) task.teacher = logits_view(teacher, teacher_type, teacher_strides);
  task.label = label_view(label, label_type, label_strides);
  task.gradient = gradient_view(gradient, gradient_strides);
  for (int t = 0; t < TERM_COUNT; t++) {
    task.settings.weight[t] = weights[size_t(t)];
    task.settings.average[t] = Average(averages[size_t(t)]);
  }
  task.settings.kd_region = kd_region;
  task.settings.alpha = alpha;
  task.settings.ignore_index = ignore_index;
  const cuda::SoftmaxResults results{reinterpret_cast<float*>(total), reinterpret_cast<float*>(values),
                                     reinterpret_cast<int64_t*>(pixels)};
  const uintptr_t memory = workspace(cuda::softmax_workspace_bytes(task, align_corners)).cast<uintptr_t>();
  cuda::softmax_loss(task, align_corners, results, reinterpret_cast<void*>(memory), reinterpret_cast<void*>(stream));
}

void sigmoid_loss_of_tensors(uintptr_t student, int student_type, const Strides& student_strides, uintptr_t teacher,
                             int teacher_type, const Strides& teacher_strides, uintptr_t label, int label_type,
                             const Strides& label_strides, uintptr_t gradient, const Strides& gradient_strides,
                             const std::vector<int64_t>& sizes, const std::vector<double>& weights, double pos_weight,
                             int64_t ignore_index, bool align_corners, uintptr_t total, uintptr_t values,
                             const py::function& workspace, uintptr_t stream) {
  cuda::SigmoidTask task;
  task.batch = sizes[0];
  task.classes = sizes[1];
  task.old_classes = sizes[2];
  task.height = sizes[3];
  task.width = sizes[4];
  task.label_height = sizes[5];
  task.label_width = sizes[6];
  task.student = logits_view(student, student_type, student_strides);
  if (teacher) task.teacher = logits_view(teacher, teacher_type, teacher_strides);
  task.label = label_view(label, label_type, label_strides);
  task.gradient = gradient_view(gradient, gradient_strides);
  for (int t = 0; t < cuda::SIGMOID_TERM_COUNT; t++) task.weight[t] = weights[size_t(t)];
  task.positive_weight = pos_weight;
  task.ignore_index = ignore_index;
  const cuda::SigmoidResults results{reinterpret_cast<float*>(total), reinterpret_cast<float*>(values)};
  const uintptr_t memory = workspace(cuda::sigmoid_workspace_bytes(task, align_corners)).cast<uintptr_t>();
  cuda::sigmoid_loss(task, align_corners, results, reinterpret_cast<void*>(memory), reinterpret_cast<void*>(stream));
}

// Dense arrays of float, see csrc/cuda/cayley_rotate.h.
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
  const uintptr_t memory = workspace(cuda::cayley_workspace_bytes(task)).cast<uintptr_t>();
  cuda::cayley_rotate(task, reinterpret_cast<void*>(memory), reinterpret_cast<void*>(stream));
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
  const uintptr_t memory = workspace(cuda::rotation_workspace_bytes(task)).cast<uintptr_t>();
  cuda::rotation_loss(task, reinterpret_cast<void*>(memory), reinterpret_cast<void*>(stream));
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
  module.def("softmax_loss", &ciss::softmax_loss_of_tensors, py::arg("student"), py::arg("student_type"),
             py::arg("student_strides"), py::arg("teacher"), py::arg("teacher_type"), py::arg("teacher_strides"),
             py::arg("label"), py::arg("label_type"), py::arg("label_strides"), py::arg("gradient"),
             py::arg("gradient_strides"), py::arg("sizes"), py::arg("weights"), py::arg("averages"),
             py::arg("kd_region"), py::arg("alpha"), py::arg("ignore_index"), py::arg("align_corners"),
             py::arg("total"), py::arg("values"), py::arg("pixels"), py::arg("workspace"), py::arg("stream"));
  module.def("sigmoid_loss", &ciss::sigmoid_loss_of_tensors, py::arg("student"), py::arg("student_type"),
             py::arg("student_strides"), py::arg("teacher"), py::arg("teacher_type"), py::arg("teacher_strides"),
             py::arg("label"), py::arg("label_type"), py::arg("label_strides"), py::arg("gradient"),
             py::arg("gradient_strides"), py::arg("sizes"), py::arg("weights"), py::arg("pos_weight"),
             py::arg("ignore_index"), py::arg("align_corners"), py::arg("total"), py::arg("values"),
             py::arg("workspace"), py::arg("stream"));
  module.def("cayley_rotate", &ciss::cayley_rotate_of_tensors, py::arg("params"), py::arg("right_sides"),
             py::arg("sign"), py::arg("rotated"), py::arg("solutions"), py::arg("forward_solutions"),
             py::arg("grad_params"), py::arg("iterations"), py::arg("classes"), py::arg("vectors"),
             py::arg("dimension"), py::arg("workspace"), py::arg("stream"));
  module.def("rotation_loss", &ciss::rotation_loss_of_tensors, py::arg("params"), py::arg("previous"),
             py::arg("current"), py::arg("weight"), py::arg("bias"), py::arg("grad_params"), py::arg("products"),
             py::arg("total"), py::arg("values"), py::arg("classes"), py::arg("groups"), py::arg("dimension"),
             py::arg("outputs"), py::arg("fidelity_weight"), py::arg("workspace"), py::arg("stream"));
}
