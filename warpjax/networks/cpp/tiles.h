#ifndef WARPJAX_TILES_H_
#define WARPJAX_TILES_H_

// Tiles of 2x2 results of a 3x3 kernel at stride 1, the 4x4 pixels that each of them reads, and their transforms.
//
// Along an axis two results y meet four pixels x and a kernel k, and are y = A'[(G k) * (B' x)] with four products.
// See Winograd 1980, and Lavin and Gray 2016, arXiv 1509.09308.

#include "padding.h"

namespace warpjax {

constexpr int kPoints = 4, kAllPoints = kPoints * kPoints, kTile = 2;

// `XPoints` takes X to its points, and `PointsX` is the transpose.
struct ImagePoints {
  static constexpr int kFrom = 4, kTo = kPoints;
  template <typename V>
  static void One(const V (&x)[4], V (&m)[4]) {
    m[0] = x[0] - x[2], m[1] = x[1] + x[2], m[2] = x[2] - x[1], m[3] = x[1] - x[3];
  }
};

struct PointsImage {
  static constexpr int kFrom = kPoints, kTo = 4;
  template <typename V>
  static void One(const V (&m)[4], V (&x)[4]) {
    x[0] = m[0], x[1] = m[1] - m[2] + m[3], x[2] = m[1] + m[2] - m[0], x[3] = -m[3];
  }
};

struct KernelPoints {
  static constexpr int kFrom = 3, kTo = kPoints;
  template <typename V>
  static void One(const V (&k)[3], V (&m)[4]) {
    const V ends = k[0] + k[2];
    m[0] = k[0], m[1] = (ends + k[1]) / 2, m[2] = (ends - k[1]) / 2, m[3] = k[2];
  }
};

struct PointsKernel {
  static constexpr int kFrom = kPoints, kTo = 3;
  template <typename V>
  static void One(const V (&m)[4], V (&k)[3]) {
    const V half = (m[1] + m[2]) / 2;
    k[0] = m[0] + half, k[1] = (m[1] - m[2]) / 2, k[2] = half + m[3];
  }
};

struct ResultPoints {
  static constexpr int kFrom = kTile, kTo = kPoints;
  template <typename V>
  static void One(const V (&y)[2], V (&m)[4]) {
    m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = -y[1];
  }
};

struct PointsResult {
  static constexpr int kFrom = kPoints, kTo = kTile;
  template <typename V>
  static void One(const V (&m)[4], V (&y)[2]) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
  }
};

// A transform along both axes.
template <typename F, typename V>
inline __attribute__((always_inline)) void Both(const V (&from)[F::kFrom][F::kFrom], V (&to)[F::kTo][F::kTo]) {
  V middle[F::kTo][F::kFrom];
#pragma GCC unroll 4
  for (int j = 0; j < F::kFrom; ++j) {
    V column[F::kFrom], moved[F::kTo];
#pragma GCC unroll 4
    for (int i = 0; i < F::kFrom; ++i) column[i] = from[i][j];
    F::One(column, moved);
#pragma GCC unroll 4
    for (int i = 0; i < F::kTo; ++i) middle[i][j] = moved[i];
  }
#pragma GCC unroll 4
  for (int i = 0; i < F::kTo; ++i) F::One(middle[i], to[i]);
}

// Vectors that are `row` and `column` numbers apart.
template <int N, typename V, typename T>
inline __attribute__((always_inline)) void Load(const T* from, Index row, Index column, V (&to)[N][N]) {
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) to[i][j] = *reinterpret_cast<const V*>(from + i * row + j * column);
}

template <int N, typename V, typename T>
inline __attribute__((always_inline)) void Store(const V (&from)[N][N], bool add, Index row, Index column, T* to) {
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < N; ++j) {
      V* place = reinterpret_cast<V*>(to + i * row + j * column);
      *place = add ? *place + from[i][j] : from[i][j];
    }
}

// Images with room for whole tiles, `[row, column, wide]`: `wide` channels are whole vectors. The lanes behind the
// last channel hold arbitrary numbers, which no result uses.
template <typename T>
struct Frame {
  static constexpr Index kLanes = Plain<T>::kLanes;
  const Index extents[2], low[2], size[2], channels, wide;

  // For an image of `extents`, in front of which are `low` zeros.
  Frame(const Index* extents, Index low0, Index low1, Index rows, Index columns, Index channels)
      : extents{extents[0], extents[1]},
        low{low0, low1},
        size{rows, columns},
        channels(channels),
        wide((channels + kLanes - 1) / kLanes * kLanes) {}

  Index Numbers() const { return size[0] * size[1] * wide; }
  Index Row() const { return size[1] * wide; }
  Index Outside() const { return extents[0] * extents[1] * channels; }

  void Read(const T* image, T* to) const {
    const Index begin[2] = {-low[0], -low[1]};
    Pad<Plain<T>>(image, extents, channels, channels, begin, size, to, wide);
  }

  // The part of an image that the frame has; zeros elsewhere.
  void Write(const T* from, T* image) const {
    Pad<Plain<T>>(from, size, wide, channels, low, extents, image, channels);
  }
};

}  // namespace warpjax

#endif  // WARPJAX_TILES_H_
