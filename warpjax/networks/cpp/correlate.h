#ifndef WARPJAX_CORRELATE_H_
#define WARPJAX_CORRELATE_H_

// The result of a convolution, and its gradient with respect to the images: sums of runs, a run being consecutive
// numbers of a padded image that meet consecutive rows of a packed kernel.

#include "geometry.h"
#include "padding.h"
#include "pieces.h"

namespace warpjax {

constexpr Index kGroupBytes = 1 << 17;  // of padded images that are read together, and of what is made of them
constexpr Index kPieceFlops = 2000000;  // some 20 microseconds

// A task's kernel in panels of features, `[panel, phase, tap, input, width]`.
template <typename M>
void Pack(const typename M::Number* kernel, const Plan& plan, bool of_images, Index inputs, const Panels<M>& panels,
          typename M::Cell* packed) {
  const Index features = panels.features;
  const Index to_feature = of_images ? inputs : 1, to_input = of_images ? 1 : features;
  for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth) {
    const Index width = panels.Width(first), known = panels.Known(first);
    for (const Phase& phase : plan.phases)
      for (const Index tap : phase.taps) {
        const auto* one = kernel + tap * inputs * features + first * to_feature;
        for (Index input = 0; input < inputs; input += M::kNumbers, packed += width) {
          M::Make(one + input * to_input, (M::kNumbers - 1) * to_input, to_feature, known, packed);
          Zeros<M>(width - known, packed + known);
        }
      }
  }
}

// One panel of features of the first `count` outputs of a phase.
template <typename M>
void CorrelatePanel(const Phase& phase, Index count, const typename M::Cell* input, const typename M::Cell* panel,
                    Index width, Index known, typename M::Number* out) {
  const Index length = phase.steps.size();
  for (Index pixel = 0; pixel < count; pixel += kRows) {
    WithSizes(std::min<Index>(kRows, count - pixel), width == M::kLanes, [&](auto rows, auto vectors) {
      constexpr int P = rows, V = vectors;
      const typename M::Cell* from[P];
      for (int p = 0; p < P; ++p) from[p] = input + phase.reads[pixel + p];
      const Index* steps = phase.steps.data();
      typename M::Vector total[P][V] = {};
      Accumulate<M, P, V>([&](int p, Index k) { return from[p][steps[k]]; }, panel, length, total);
      for (int p = 0; p < P; ++p) {
        typename M::Number* place = out + phase.writes[pixel + p];
        if (known == V * M::kLanes) {
          for (int v = 0; v < V; ++v) *reinterpret_cast<typename M::Vector*>(place + v * M::kLanes) = total[p][v];
        } else {
          std::memcpy(place, total[p], known * sizeof(typename M::Number));
        }
      }
    });
  }
}

// The result (`of_images` false) or the gradient of images, for all tasks.
template <typename M>
void Correlate(Threads& threads, const Geometry& g, bool of_images, Index tasks, Index images, Index inputs,
               Index features, const typename M::Number* source, const typename M::Number* kernel,
               typename M::Number* target) {
  const Index* from = of_images ? g.result : g.image;
  const Index* to = of_images ? g.image : g.result;
  const Index taps = g.kernel[0] * g.kernel[1], cells = inputs / M::kNumbers;
  const Panels<M> panels(features);
  const Plan plan =
      MakePlan(g, of_images, images, cells, features, kGroupBytes / static_cast<Index>(sizeof(typename M::Cell)));
  const Index packed_size = taps * cells * panels.padded;
  std::unique_ptr<typename M::Cell[]> packed(new typename M::Cell[tasks * packed_size]);
  for (Index task = 0; task < tasks; ++task)
    Pack<M>(kernel + task * taps * inputs * features, plan, of_images, inputs, panels,
            packed.get() + task * packed_size);
  const Index flops = 2 * g.result[0] * g.result[1] * taps * inputs * features;
  const Index each = std::max(plan.group, kPieceFlops / (flops + 1) / plan.group * plan.group);
  const Index pieces = (images + each - 1) / each, padded = plan.size[0] * plan.size[1] * cells;
  Pieces::Run(threads, tasks * pieces, [&](Index piece) {
    const Index task = piece / pieces, end = std::min(images, (piece % pieces + 1) * each);
    for (Index start = piece % pieces * each; start < end; start += plan.group) {
      const Index count = std::min(plan.group, end - start), first_image = task * images + start;
      auto* input = Memory<typename M::Cell>(0, plan.group * padded);
      for (Index image = 0; image < count; ++image)
        Pad<M>(source + (first_image + image) * from[0] * from[1] * inputs, from, inputs, inputs, plan.begin, plan.size,
               input + image * padded, cells);
      const auto* panel = packed.get() + task * packed_size;
      for (Index first = 0; first < panels.padded; first += Panels<M>::kWidth)
        for (const Phase& phase : plan.phases) {
          const Index outputs = phase.reads.size() / plan.group * count;
          CorrelatePanel<M>(phase, outputs, input, panel, panels.Width(first), panels.Known(first),
                            target + first_image * to[0] * to[1] * features + first);
          panel += phase.steps.size() * panels.Width(first);
        }
    }
  });
}

}  // namespace warpjax

#endif  // WARPJAX_CORRELATE_H_
