// An axis of the label map cut into the pieces of which a cell is made: a cell is one piece of rows times one piece of
// columns, its pixels lie between the same four logits. Per piece, the places where a smooth function has to be
// evaluated so that its weighted sum is the sum over the pixels.
#pragma once

#include <cstdint>
#include <vector>

#include "axis.h"
#include "gauss_rule.h"

namespace ciss {

// Nodes of the Gauss rules on offer. The last level takes every pixel.
constexpr int RULE_NODES[] = {2, 3, 4, 5, 6, 8, 10, 12};
constexpr int RULES = 8, EVERY_PIXEL = RULES, LEVELS = RULES + 1;

// Up to which change of a logit over the piece, from end to end, a rule is used (natural units). The mean of
// softplus and of sigmoid, and sigmoid's first moment, are then within 4e-7 of the sum over the pixels (softplus
// relative to its own value), whatever the logit and the number of pixels: tests/ops/sigmoid_loss measures it.
constexpr double RULE_LIMIT[RULES] = {0.1, 0.7, 1.5, 2.5, 3.8, 6.0, 8.2, 10.4};

struct NodeRange {
  int32_t count = 0, offset = 0;  // into the piece tables' `fraction` and `weight`
};

// The pieces of an axis as plain arrays.
template <class Real>
struct PieceView {
  int64_t count = 0;
  const int32_t *first_pixel = nullptr, *length = nullptr;
  const int32_t *left = nullptr, *right = nullptr;  // source indices
  const Real* step = nullptr;      // change of the right index's weight from pixel to pixel
  const NodeRange* nodes = nullptr;  // [count][LEVELS]
  const Real* fraction = nullptr;    // weight of the right index at a node
  const Real* weight = nullptr;      // pixels that a node stands for; zeros follow the last table
};

// Made once: a piece has at most 2 * LONGEST_RUN + 1 pixels.
inline const GaussRule& rule_of(int length, int level) {
  struct Table {
    GaussRule rules[2 * LONGEST_RUN + 2][RULES];
    Table() {
      for (int points = 0; points <= 2 * LONGEST_RUN + 1; points++)
        for (int i = 0; i < RULES; i++)
          if (RULE_NODES[i] < points) rules[points][i] = gauss_rule(points, RULE_NODES[i]);
    }
  };
  static const Table table;
  return table.rules[length][level];
}

template <class Real>
class Pieces {
 public:
  // `padding`: elements that may be read past the end of a node table.
  Pieces(const Axis& axis, int padding) : lanes_(make_lanes(axis)) {
    for (int i = 0; i < lanes_.count(); i++) {
      const size_t lane = size_t(i);
      const int length = lanes_.length[lane];
      const double step = lanes_.step[lane];
      const double first = lanes_.centre[lane] + (lanes_.first_slot[lane] - lanes_.run) * step;
      const double middle = first + 0.5 * (length - 1) * step;
      step_.push_back(Real(step));
      NodeRange every{length, int32_t(fraction_.size())};
      if (step == 0) {  // nothing changes along the piece
        every.count = 1;
        add_node(first, length);
      } else {
        for (int k = 0; k < length; k++) add_node(first + k * step, 1);
      }
      for (int level = 0; level < RULES; level++) {
        if (step == 0 || RULE_NODES[level] >= length) {
          nodes_.push_back(every);
          continue;
        }
        const GaussRule& rule = rule_of(length, level);
        nodes_.push_back({int32_t(rule.position.size()), int32_t(fraction_.size())});
        for (size_t k = 0; k < rule.position.size(); k++) add_node(middle + rule.position[k] * step, rule.weight[k]);
      }
      nodes_.push_back(every);
    }
    for (int k = 0; k < padding; k++) add_node(0, 0);
  }

  PieceView<Real> view() const {
    return {lanes_.count(),      lanes_.first_pixel.data(), lanes_.length.data(), lanes_.left.data(),
            lanes_.right.data(), step_.data(),              nodes_.data(),        fraction_.data(),
            weight_.data()};
  }

 private:
  void add_node(double fraction, double weight) {
    fraction_.push_back(Real(fraction));
    weight_.push_back(Real(weight));
  }

  Lanes lanes_;
  std::vector<Real> step_, fraction_, weight_;
  std::vector<NodeRange> nodes_;
};

}  // namespace ciss
