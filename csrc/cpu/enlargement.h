// Everything about the enlargement of a map that does not depend on its logits; made once per call, shared by threads.
#pragma once

#include <algorithm>
#include <vector>

#include "lane_arrays.h"

namespace ciss {

struct Enlargement {
  Lanes lanes;
  std::vector<Strip> strips;
  std::vector<double> bottom_weights;  // [label_height]
  int64_t longest_strip = 0;           // rows

  // From the sizes of a SoftmaxTask or LabelMapTask; the task keeps pointers into this object.
  template <class Task>
  Enlargement(Task& task, bool align_corners)
      : lanes(make_lanes(Axis{task.width, task.label_width, align_corners})) {
    const Axis vertical{task.height, task.label_height, align_corners};
    strips = make_strips(vertical);
    for (int64_t y = 0; y < task.label_height; y++) bottom_weights.push_back(bottom_weight(vertical, y));
    for (const Strip& s : strips) longest_strip = std::max(longest_strip, s.rows);
    task.lanes = LaneArrays(lanes);
    task.bottom_weight = bottom_weights.data();
    task.longest_strip = longest_strip;
  }
  Enlargement(const Enlargement&) = delete;
};

}  // namespace ciss
