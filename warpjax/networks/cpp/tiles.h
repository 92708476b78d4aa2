#ifndef WARPJAX_TILES_H_
#define WARPJAX_TILES_H_

// Tiles of 2x2 or 4x4 results of a 3x3 kernel at stride 1, the 4x4 or 6x6 pixels that each of them reads, and their
// transforms.
//
// Along an axis, results y meet two more pixels x and a kernel k, and are y = A'[(G k) * (B' x)] with a product for each
// pixel. See Winograd 1980, and Lavin and Gray 2016, arXiv 1509.09308.

#include "padding.h"

namespace warpjax {

// The transforms of a tile of `kTile` results. `XPoints` takes X to its points, and `PointsX` is the transpose.
template <int Tile>
struct Transforms;

template <int From, int To>
struct Along {
  static constexpr int kFrom = From, kTo = To;
};

template <>
struct Transforms<2> {
  struct ImagePoints : Along<4, 4> {
    template <typename V>
    static void One(const V (&x)[4], V (&m)[4]) {
      m[0] = x[0] - x[2], m[1] = x[1] + x[2], m[2] = x[2] - x[1], m[3] = x[1] - x[3];
    }
  };
  struct PointsImage : Along<4, 4> {
    template <typename V>
    static void One(const V (&m)[4], V (&x)[4]) {
      x[0] = m[0], x[1] = m[1] - m[2] + m[3], x[2] = m[1] + m[2] - m[0], x[3] = -m[3];
    }
  };
  struct KernelPoints : Along<3, 4> {
    template <typename V>
    static void One(const V (&k)[3], V (&m)[4]) {
      const V ends = k[0] + k[2];
      m[0] = k[0], m[1] = (ends + k[1]) / 2, m[2] = (ends - k[1]) / 2, m[3] = k[2];
    }
  };
  struct PointsKernel : Along<4, 3> {
    template <typename V>
    static void One(const V (&m)[4], V (&k)[3]) {
      const V half = (m[1] + m[2]) / 2;
      k[0] = m[0] + half, k[1] = (m[1] - m[2]) / 2, k[2] = half + m[3];
    }
  };
  struct ResultPoints : Along<2, 4> {
    template <typename V>
    static void One(const V (&y)[2], V (&m)[4]) {
      m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = -y[1];
    }
  };
  struct PointsResult : Along<4, 2> {
    template <typename V>
    static void One(const V (&m)[4], V (&y)[2]) {
      y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
    }
  };
};

// By the points 0, 1, -1, 2, -2 and infinity.
template <>
struct Transforms<4> {
  struct ImagePoints : Along<6, 6> {
    template <typename V>
    static void One(const V (&x)[6], V (&m)[6]) {
      const V a = x[4] - 4 * x[2], b = x[3] - 4 * x[1], c = x[4] - x[2], d = 2 * (x[3] - x[1]);
      m[0] = 4 * (x[0] - x[2]) + c, m[1] = a + b, m[2] = a - b, m[3] = c + d, m[4] = c - d;
      m[5] = x[5] - x[3] - 2 * d;
    }
  };
  struct PointsImage : Along<6, 6> {
    template <typename V>
    static void One(const V (&m)[6], V (&x)[6]) {
      const V p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = 2 * (m[3] - m[4]);
      x[0] = 4 * m[0], x[1] = 4 * (m[5] - q) - s, x[2] = -5 * m[0] - 4 * p - r, x[3] = q + s - 5 * m[5];
      x[4] = m[0] + p + r, x[5] = m[5];
    }
  };
  struct KernelPoints : Along<3, 6> {
    template <typename V>
    static void One(const V (&k)[3], V (&m)[6]) {
      const V a = (k[0] + k[2]) / -6, b = k[1] / 6, c = k[0] / 24 + k[2] / 6, d = k[1] / 12;
      m[0] = k[0] / 4, m[1] = a - b, m[2] = a + b, m[3] = c + d, m[4] = c - d, m[5] = k[2];
    }
  };
  struct PointsKernel : Along<6, 3> {
    template <typename V>
    static void One(const V (&m)[6], V (&k)[3]) {
      const V p = (m[1] + m[2]) / 6, r = m[3] + m[4];
      k[0] = m[0] / 4 - p + r / 24, k[1] = (m[2] - m[1]) / 6 + (m[3] - m[4]) / 12, k[2] = r / 6 - p + m[5];
    }
  };
  struct ResultPoints : Along<4, 6> {
    template <typename V>
    static void One(const V (&y)[4], V (&m)[6]) {
      const V a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], d = 2 * y[1] + 8 * y[3];
      m[0] = y[0], m[1] = a + b, m[2] = a - b, m[3] = c + d, m[4] = c - d, m[5] = y[3];
    }
  };
  struct PointsResult : Along<6, 4> {
    template <typename V>
    static void One(const V (&m)[6], V (&y)[4]) {
      const V p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = 2 * (m[3] - m[4]);
      y[0] = m[0] + p + r, y[1] = q + s, y[2] = p + 4 * r, y[3] = q + 4 * s + m[5];
    }
  };
};

// A transform along both axes.
template <typename F, typename V>
inline __attribute__((always_inline)) void Both(const V (&from)[F::kFrom][F::kFrom], V (&to)[F::kTo][F::kTo]) {
  V middle[F::kTo][F::kFrom];
#pragma GCC unroll 6
  for (int j = 0; j < F::kFrom; ++j) {
    V column[F::kFrom], moved[F::kTo];
#pragma GCC unroll 6
    for (int i = 0; i < F::kFrom; ++i) column[i] = from[i][j];
    F::One(column, moved);
#pragma GCC unroll 6
    for (int i = 0; i < F::kTo; ++i) middle[i][j] = moved[i];
  }
#pragma GCC unroll 6
  for (int i = 0; i < F::kTo; ++i) F::One(middle[i], to[i]);
}

// Vectors that are `row` and `column` numbers apart.
template <int N, typename V, typename T>
inline __attribute__((always_inline)) void Load(const T* from, Index row, Index column, V (&to)[N][N]) {
#pragma GCC unroll 6
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 6
    for (int j = 0; j < N; ++j) to[i][j] = *reinterpret_cast<const V*>(from + i * row + j * column);
}

template <int N, typename V, typename T>
inline __attribute__((always_inline)) void Store(const V (&from)[N][N], bool add, Index row, Index column, T* to) {
#pragma GCC unroll 6
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 6
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
