// What Python passes to the losses over logits, the same to the CPU's and the GPU's: keyword arguments, taken one by one.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <iterator>
#include <string>
#include <vector>

#include "core/sigmoid_terms.h"
#include "core/softmax_terms.h"
#include "tensor_arguments.h"

namespace ciss {

class Keywords {
 public:
  explicit Keywords(const pybind11::kwargs& given) : given(given) {}

  template <class T>
  T take(const std::string& name) {
    if (!given.contains(name)) throw pybind11::type_error("expected the keyword argument " + name);
    taken++;
    return given[name.c_str()].template cast<T>();
  }

  LogitsView take_logits(const std::string& name) {
    const uintptr_t address = take<uintptr_t>(name);
    const int type = take<int>(name + "_type");
    const Strides strides = take<Strides>(name + "_strides");
    return address ? logits_view(address, type, strides) : LogitsView();
  }
  LabelView take_label(const std::string& name) {
    const uintptr_t address = take<uintptr_t>(name);
    const int type = take<int>(name + "_type");
    return label_view(address, type, take<Strides>(name + "_strides"));
  }
  GradientView take_gradient(const std::string& name) {
    const uintptr_t address = take<uintptr_t>(name);
    return gradient_view(address, take<Strides>(name + "_strides"));
  }
  template <class T>
  T* take_address(const std::string& name) {
    return reinterpret_cast<T*>(take<uintptr_t>(name));
  }

  // Once all are taken.
  void finish() const {
    if (taken != given.size())
      throw pybind11::type_error("expected " + std::to_string(taken) + " keyword arguments, got " +
                                 std::to_string(given.size()));
  }

 private:
  pybind11::kwargs given;
  size_t taken = 0;
};

// The maps of a task, and its sizes: batch, classes (channels of the student), old_classes, height, width, label_height,
// label_width.
template <class Task>
void take_maps(Keywords& keywords, Task& task) {
  const auto sizes = keywords.take<std::vector<int64_t>>("sizes");
  int64_t* const to[] = {&task.batch,        &task.classes,     &task.old_classes, &task.height, &task.width,
                         &task.label_height, &task.label_width};
  for (size_t i = 0; i < 7; i++) *to[i] = sizes.at(i);
  task.student = keywords.take_logits("student");
  task.teacher = keywords.take_logits("teacher");
  task.label = keywords.take_label("label");
  task.gradient = keywords.take_gradient("gradient");
}

inline SoftmaxSettings take_softmax_settings(Keywords& keywords) {
  const auto weights = keywords.take<std::vector<double>>("weights");
  const auto averages = keywords.take<std::vector<int>>("averages");
  SoftmaxSettings settings;
  for (size_t t = 0; t < TERM_COUNT; t++) {
    settings.weight[t] = weights.at(t);
    settings.average[t] = Average(averages.at(t));
  }
  settings.kd_region = keywords.take<uint32_t>("kd_region");
  settings.alpha = keywords.take<double>("alpha");
  settings.ignore_index = keywords.take<int64_t>("ignore_index");
  return settings;
}

// What remains of the arguments of a loss on the CPU; calls it.
template <class Result, class Task>
Result run_on_cpu(Keywords& keywords, const Task& task, Result (*loss)(Task, bool, bool, bool, int)) {
  const bool align_corners = keywords.take<bool>("align_corners");
  const bool double_precision = keywords.take<bool>("double_precision");
  const bool check_labels = keywords.take<bool>("check_labels");
  const int threads = keywords.take<int>("threads");
  keywords.finish();
  pybind11::gil_scoped_release release;
  return loss(task, align_corners, double_precision, check_labels, threads);
}

template <class Result>
pybind11::dict results_of(const Result& result) {
  pybind11::dict out;
  out["total"] = result.total;
  out["values"] = std::vector<double>(std::begin(result.value), std::end(result.value));
  out["invalid_labels"] = result.invalid_labels;
  out["first_invalid"] =
      pybind11::make_tuple(result.first_invalid_image, result.first_invalid_row, result.first_invalid_column);
  return out;
}

template <class Task>
void take_sigmoid_settings(Keywords& keywords, Task& task) {
  const auto weights = keywords.take<std::vector<double>>("weights");
  for (size_t t = 0; t < SIGMOID_TERM_COUNT; t++) task.weight[t] = weights.at(t);
  task.positive_weight = keywords.take<double>("pos_weight");
  task.ignore_index = keywords.take<int64_t>("ignore_index");
}

}  // namespace ciss
