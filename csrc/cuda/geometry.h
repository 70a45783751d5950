// How the label map's axes are cut into cells, as tables in device memory. They depend on sizes alone: a caller may keep
// them for the next call.
#pragma once

#include <vector>

#include "core/axis.h"

namespace ciss {
namespace cuda {

// At most 2 * LONGEST_RUN + 1 neighbouring pixels of an axis that lie between the same two source indices.
struct Piece {
  int32_t first = 0, length = 0;  // pixels
  int32_t left = 0, right = 0;    // source indices (of rows: top and bottom)
  float start = 0;                // weight of `right` at the first pixel
  float centre = 0;               // at pixel length / 2
  float step = 0;                 // change from pixel to pixel; 0 where the axis is clamped
  int32_t unused = 0;
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

// The tables of an axis on the host; `append` copies them to where `place` says, as one block of bytes.
class AxisNumbers {
 public:
  explicit AxisNumbers(const Axis& axis) : readers(size_t(axis.source)) {
    const Lanes lanes = make_lanes(axis);
    table.source = axis.source;
    table.output = axis.output;
    table.pieces = lanes.count();
    table.run = lanes.run;
    for (size_t i = 0; i < size_t(lanes.count()); i++) {
      const double start = lanes.centre[i] + (lanes.first_slot[i] - lanes.run) * lanes.step[i];
      pieces.push_back({lanes.first_pixel[i], lanes.length[i], lanes.left[i], lanes.right[i], float(start),
                        float(lanes.centre[i]), float(lanes.step[i]), 0});
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
    placed.piece = reinterpret_cast<const Piece*>(device_block + block.size());
    block.insert(block.end(), reinterpret_cast<const char*>(pieces.data()),
                 reinterpret_cast<const char*>(pieces.data() + pieces.size()));
    placed.readers = reinterpret_cast<const Readers*>(device_block + block.size());
    block.insert(block.end(), reinterpret_cast<const char*>(readers.data()),
                 reinterpret_cast<const char*>(readers.data() + readers.size()));
    return placed;
  }

  AxisTable table;  // without addresses

 private:
  std::vector<Piece> pieces;
  std::vector<Readers> readers;
};

}  // namespace cuda
}  // namespace ciss
