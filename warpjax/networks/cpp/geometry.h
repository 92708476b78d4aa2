#ifndef WARPJAX_GEOMETRY_H_
#define WARPJAX_GEOMETRY_H_

// Which numbers of an image meet which taps of a kernel.

#include <algorithm>
#include <utility>
#include <vector>

#include "products.h"

namespace warpjax {

struct Geometry {
  Index image[2], kernel[2], result[2], strides[2], low[2], dilation[2];
};

inline Index FloorDivide(Index a, Index b) { return a / b - (a % b < 0); }

// Along one axis: the outputs `phase, phase + step, ...`, of which number i reads `stride * i + offset` for each tap.
struct Axis {
  Index phase, step, count, stride;
  std::vector<Index> taps, offsets;
};

// All phases of an axis: one for the result, and one for each remainder of the stride for the gradient of images.
inline std::vector<Axis> Axes(const Geometry& g, int axis, bool of_images) {
  std::vector<Axis> axes;
  const Index stride = g.strides[axis];
  for (Index phase = 0; phase < (of_images ? std::min(stride, g.image[axis]) : 1); ++phase) {
    Axis one = of_images ? Axis{phase, stride, (g.image[axis] - phase + stride - 1) / stride, 1, {}, {}}
                         : Axis{0, 1, g.result[axis], stride, {}, {}};
    for (Index tap = 0; tap < g.kernel[axis]; ++tap) {
      const Index reach = tap * g.dilation[axis] - g.low[axis], back = phase - reach;
      if (of_images && back - FloorDivide(back, stride) * stride != 0) continue;
      one.taps.push_back(tap);
      one.offsets.push_back(of_images ? FloorDivide(back, stride) : reach);
    }
    axes.push_back(one);
  }
  return axes;
}

// The outputs of one phase of both axes: their taps, and in cells, where each output begins to read, what follows from
// there for each cell of each tap, and where it is written.
struct Phase {
  std::vector<Index> taps, reads, steps, writes;
};

// The pixels `begin[0] + i, begin[1] + j` of an image, `size[0] * size[1]` of them, and how all phases read them.
struct Plan {
  Index begin[2], size[2];
  Index group;  // of images that are read together, so that many small ones fill the rows of a product
  std::vector<Phase> phases;
};

// The first pixel that an axis reads, and the number of pixels from there to the last.
inline void Extend(const std::vector<Axis>& axes, Index& begin, Index& size) {
  Index first = 0, last = -1;
  for (const Axis& axis : axes)
    for (const Index offset : axis.offsets) {
      const Index end = offset + (axis.count - 1) * axis.stride;
      first = last < first ? offset : std::min(first, offset);
      last = std::max(last, end);
    }
  begin = first;
  size = last - first + 1;
}

// The plan for images of `cells` a pixel and outputs of `features` a pixel; a group has at most `most_cells` of both, or
// one image.
inline Plan MakePlan(const Geometry& g, bool of_images, Index images, Index cells, Index features, Index most_cells) {
  const auto rows = Axes(g, 0, of_images), columns = Axes(g, 1, of_images);
  const Index* to = of_images ? g.image : g.result;
  Plan plan{};
  Extend(rows, plan.begin[0], plan.size[0]);
  Extend(columns, plan.begin[1], plan.size[1]);
  const Index image = plan.size[0] * plan.size[1] * cells;
  plan.group = std::max<Index>(1, std::min(images, most_cells / (image + to[0] * to[1] * features + 1)));
  for (const Axis& row : rows)
    for (const Axis& column : columns) {
      Phase phase;
      for (std::size_t i = 0; i < row.taps.size(); ++i)
        for (std::size_t j = 0; j < column.taps.size(); ++j) {
          phase.taps.push_back(row.taps[i] * g.kernel[1] + column.taps[j]);
          const Index pixel = (row.offsets[i] - plan.begin[0]) * plan.size[1] + column.offsets[j] - plan.begin[1];
          for (Index cell = 0; cell < cells; ++cell) phase.steps.push_back(pixel * cells + cell);
        }
      for (Index number = 0; number < plan.group; ++number)
        for (Index i = 0; i < row.count; ++i)
          for (Index j = 0; j < column.count; ++j) {
            phase.reads.push_back(number * image + (i * row.stride * plan.size[1] + j * column.stride) * cells);
            const Index r = row.phase + i * row.step, c = column.phase + j * column.step;
            phase.writes.push_back(((number * to[0] + r) * to[1] + c) * features);
          }
      plan.phases.push_back(std::move(phase));
    }
  return plan;
}

}  // namespace warpjax

#endif  // WARPJAX_GEOMETRY_H_
