#ifndef WARPJAX_PADDING_H_
#define WARPJAX_PADDING_H_

// Copies of images with their padding, in the order in which products take them.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "products.h"

namespace warpjax {

// Memory of this thread, which stays for the next call.
template <typename T>
T* Memory(int slot, Index size) {
  static thread_local std::vector<T> scratch[3];
  if (static_cast<Index>(scratch[slot].size()) < size) scratch[slot].resize(size);
  return scratch[slot].data();
}

template <typename M>
void Zeros(Index count, typename M::Cell* to) {
  std::memset(to, 0, count * sizeof(typename M::Cell));
}

// The pixels `begin[0] + i, begin[1] + j` of an image as cells of consecutive channels, zeros where it has none. Pixels
// are `from_step` numbers and `to_step` cells apart.
template <typename M>
void Pad(const typename M::Number* image, const Index extents[2], Index from_step, Index channels, const Index begin[2],
         const Index size[2], typename M::Cell* to, Index to_step) {
  const Index cells = channels / M::kNumbers;
  const Index first = std::min(size[1], std::max<Index>(0, -begin[1]));
  const Index last = std::max(first, std::min(size[1], extents[1] - begin[1]));
  const Index run = from_step == channels && to_step == cells ? last - first : 1;  // pixels that are copied at once
  for (Index i = 0; i < size[0]; ++i, to += size[1] * to_step) {
    const Index row = begin[0] + i;
    const bool inside = row >= 0 && row < extents[0];
    Zeros<M>((inside ? first : size[1]) * to_step, to);
    if (!inside) continue;
    const auto* from = image + (row * extents[1] + begin[1] + first) * from_step;
    for (Index j = first; j < last; j += run, from += run * from_step)
      M::Make(from, M::kNumbers - 1, M::kNumbers, run * cells, to + j * to_step);
    Zeros<M>((size[1] - last) * to_step, to + last * to_step);
  }
}

// The same pixels, for sums over pixels: cells of a pixel and of the one `apart` behind it in its row.
template <typename M>
void PadPixels(const typename M::Number* image, const Index extents[2], Index channels, const Index begin[2],
               const Index size[2], Index apart, typename M::Cell* to) {
  using Number = typename M::Number;
  if (M::kNumbers == 1) return Pad<M>(image, extents, channels, channels, begin, size, to, channels);
  const Index numbers = size[0] * size[1] * channels;
  Number* padded = Memory<Number>(1, numbers + apart * channels);
  Pad<Plain<Number>>(image, extents, channels, channels, begin, size, padded, channels);
  std::fill_n(padded + numbers, apart * channels, Number(0));
  // Behind the last pixels of a row is the next row, which meets a zero of the result.
  M::Make(padded, apart * channels, 1, numbers, to);
}

// Features in panels of at most `kVectors` vectors, the last filled up with zeros.
template <typename M>
struct Panels {
  static constexpr Index kWidth = kVectors * M::kLanes;
  explicit Panels(Index features) : features(features), padded((features + M::kLanes - 1) / M::kLanes * M::kLanes) {}
  Index Width(Index first) const { return std::min(padded - first, kWidth); }
  Index Known(Index first) const { return std::min(features - first, kWidth); }
  const Index features, padded;
};

// Calls `body` with a number of rows and of vectors that the compiler knows.
template <typename F>
void WithSizes(Index rows, bool one_vector, const F& body) {
#define WARPJAX_CASE(P)                                                                          \
  case P:                                                                                        \
    return one_vector ? body(std::integral_constant<int, P>(), std::integral_constant<int, 1>()) \
                      : body(std::integral_constant<int, P>(), std::integral_constant<int, kVectors>());
  switch (rows) {
    WARPJAX_CASE(1)
    WARPJAX_CASE(2) WARPJAX_CASE(3) WARPJAX_CASE(4) WARPJAX_CASE(5) WARPJAX_CASE(6) WARPJAX_CASE(7) WARPJAX_CASE(8)
  }
#undef WARPJAX_CASE
}

}  // namespace warpjax

#endif  // WARPJAX_PADDING_H_
