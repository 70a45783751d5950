// How the label map's axes are cut into cells, as tables in device memory. They depend on sizes alone: a caller may keep
// them for the next call.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "core/cells.h"

namespace ciss {
namespace cuda {

// At most 2 * LONGEST_RUN + 1 neighbouring pixels of an axis that lie between the same two source indices.
struct Piece {
  int32_t first = 0, length = 0;  // pixels
  int32_t left = 0, right = 0;    // source indices (of rows: top and bottom)
  float start = 0;                // weight of `right` at the first pixel
  float centre = 0;               // at pixel length / 2
  float step = 0;                 // change from pixel to pixel; 0 where the axis is clamped
  int32_t rules = 0;              // which of the axis's sets of quadrature rules serves it, see RuleTable
};

// Pieces that read a source index: as their left one, as their right one.
struct Readers {
  int32_t first_left = 0, end_left = 0, first_right = 0, end_right = 0;
};

struct AxisTable {
  int64_t source = 0, output = 0, pieces = 0;
  int run = 0;  // no piece has more than 2 * run + 1 pixels
  const Piece* piece = nullptr;      // [pieces]
  const Readers* readers = nullptr;  // [source]
};

// Appends numbers to a block that will lie at `device_block`; returns where they will be.
template <class T>
const T* append_numbers(std::vector<char>& block, const char* device_block, const std::vector<T>& numbers) {
  const T* const place = reinterpret_cast<const T*>(device_block + block.size());
  const char* const first = reinterpret_cast<const char*>(numbers.data());
  block.insert(block.end(), first, first + numbers.size() * sizeof(T));
  return place;
}

// Where a smooth function has to be evaluated so that its weighted sum is the sum over a piece's pixels.
struct RuleNode {
  float position = 0;  // from the piece's middle, in pixels
  float weight = 0;
};

// Sets of rules, one for each kind of piece, as csrc/core/cells.h has them for single pieces.
struct RuleTable {
  const NodeRange* ranges = nullptr;  // [sets, LEVELS]
  const RuleNode* nodes = nullptr;
  float limits[RULES] = {};  // change of a logit over the piece up to which a level serves, in log2 units
};

class RuleNumbers {
 public:
  // Along a piece that is not `changing` one node stands for all pixels.
  void append(int length, bool changing) {
    for (int level = 0; level < LEVELS; level++) {
      NodeRange range{0, int32_t(nodes.size())};
      if (!changing) {
        nodes.push_back({0, float(length)});
      } else if (level == EVERY_PIXEL || RULE_NODES[level] >= length) {
        for (int k = 0; k < length; k++) nodes.push_back({float(k) - 0.5f * float(length - 1), 1});
      } else {
        const GaussRule& rule = rule_of(length, level);
        for (size_t k = 0; k < rule.position.size(); k++)
          nodes.push_back({float(rule.position[k]), float(rule.weight[k])});
      }
      range.count = int32_t(nodes.size()) - range.offset;
      ranges.push_back(range);
    }
  }

  size_t bytes() const { return ranges.size() * sizeof(NodeRange) + nodes.size() * sizeof(RuleNode); }

  RuleTable append_to(std::vector<char>& block, const char* device_block) const {
    RuleTable placed;
    placed.ranges = append_numbers(block, device_block, ranges);
    placed.nodes = append_numbers(block, device_block, nodes);
    for (int level = 0; level < RULES; level++) placed.limits[level] = float(RULE_LIMIT[level] * 1.44269504088896340736);
    return placed;
  }

 private:
  std::vector<NodeRange> ranges;
  std::vector<RuleNode> nodes;
};

// The tables of an axis on the host; `append` copies them to where `place` says, as one block of bytes.
class AxisNumbers {
 public:
  explicit AxisNumbers(const Axis& axis) : readers(size_t(axis.source)) {
    const Lanes lanes = make_lanes(axis);
    table.source = axis.source;
    table.output = axis.output;
    table.pieces = lanes.count();
    table.run = lanes.run;
    std::vector<std::pair<int32_t, bool>> known;  // lengths, and whether the logits change along the piece
    for (size_t i = 0; i < size_t(lanes.count()); i++) {
      const double start = lanes.centre[i] + (lanes.first_slot[i] - lanes.run) * lanes.step[i];
      const std::pair<int32_t, bool> kind(lanes.length[i], lanes.step[i] != 0);
      const auto found = std::find(known.begin(), known.end(), kind);
      const int32_t rules = int32_t(found - known.begin());
      if (found == known.end()) {
        known.push_back(kind);
        rule_sets.append(kind.first, kind.second);
      }
      pieces.push_back({lanes.first_pixel[i], lanes.length[i], lanes.left[i], lanes.right[i], float(start),
                        float(lanes.centre[i]), float(lanes.step[i]), rules});
      Readers &left = readers[size_t(lanes.left[i])], &right = readers[size_t(lanes.right[i])];
      if (left.end_left == 0) left.first_left = int32_t(i);
      left.end_left = int32_t(i) + 1;
      if (right.end_right == 0) right.first_right = int32_t(i);
      right.end_right = int32_t(i) + 1;
    }
  }

  size_t bytes() const { return pieces.size() * sizeof(Piece) + readers.size() * sizeof(Readers); }

  // Appends the tables to `block`, which will lie at `device_block`.
  AxisTable append(std::vector<char>& block, const char* device_block) const {
    AxisTable placed = table;
    placed.piece = append_numbers(block, device_block, pieces);
    placed.readers = append_numbers(block, device_block, readers);
    return placed;
  }

  AxisTable table;  // without addresses
  RuleNumbers rule_sets;

 private:
  std::vector<Piece> pieces;
  std::vector<Readers> readers;
};

}  // namespace cuda
}  // namespace ciss
