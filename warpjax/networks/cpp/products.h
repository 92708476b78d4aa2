#ifndef WARPJAX_PRODUCTS_H_
#define WARPJAX_PRODUCTS_H_

// How products are computed: of float or double numbers, or of floats rounded to bfloat16, whose sums are floats.

#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace warpjax {

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRows = 8;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kRows = 6;
#else
constexpr int kVectorBytes = 16;
constexpr int kRows = 6;
#endif
constexpr int kVectors = 2;

template <typename T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};

// How products are computed. A `Number` is what arrays hold, a `Cell` what a product takes: `kNumbers` of them.
template <typename T>
struct Plain {
  using Number = T;
  using Cell = T;
  using Vector = typename VectorOf<T>::Type;
  using Cells = Vector;
  static constexpr Index kNumbers = 1, kLanes = kVectorBytes / sizeof(T);
  static Cell Make(Number number, Number) { return number; }
  // Cells of the numbers `from[i * step]`; of two numbers each, the second one is `apart` behind the first.
  static void Make(const Number* from, Index apart, Index step, Index count, Cell* to) {
    if (step == 1) {
      std::memcpy(to, from, count * sizeof(Cell));
    } else {
      for (Index i = 0; i < count; ++i) to[i] = from[i * step];
    }
  }
  static inline __attribute__((always_inline)) Vector Add(Vector total, Cell left, Cells right) {
    return total + left * right;
  }
};

inline std::uint16_t Bfloat16(float number) {
  std::uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 64;  // stays a NaN
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

#if defined(__AVX512BF16__)
// Pairs of bfloat16, which one instruction multiplies and sums.
struct Rounded {
  using Number = float;
  using Cell = std::uint32_t;
  using Vector = VectorOf<float>::Type;
  using Cells = VectorOf<std::uint32_t>::Type;
  static constexpr Index kNumbers = 2, kLanes = kVectorBytes / sizeof(float);
  static Cell Make(Number first, Number second) { return Bfloat16(first) | Cell{Bfloat16(second)} << 16; }
  static void Make(const Number* from, Index apart, Index step, Index count, Cell* to) {
    Index i = 0;
    if (step == 2 && apart == 1) {
      for (; i + kLanes <= count; i += kLanes) {
        const __m512 low = _mm512_loadu_ps(from + 2 * i), high = _mm512_loadu_ps(from + 2 * i + kLanes);
        _mm512_storeu_si512(to + i, (__m512i)_mm512_cvtne2ps_pbh(high, low));
      }
    } else if (step == 1) {
      for (; i + kLanes <= count; i += kLanes) {
        const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
        const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i + apart)));
        _mm512_storeu_si512(to + i, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
    }
    for (; i < count; ++i) to[i] = Make(from[i * step], from[i * step + apart]);
  }
  static inline __attribute__((always_inline)) Vector Add(Vector total, Cell left, Cells right) {
    return (Vector)_mm512_dpbf16_ps((__m512)total, (__m512bh)_mm512_set1_epi32(left), (__m512bh)right);
  }
};
#else
struct Rounded : Plain<float> {
  static Cell Make(Number number, Number) {
    const std::uint32_t bits = std::uint32_t{Bfloat16(number)} << 16;
    std::memcpy(&number, &bits, sizeof bits);
    return number;
  }
  static void Make(const Number* from, Index, Index step, Index count, Cell* to) {
    for (Index i = 0; i < count; ++i) to[i] = Make(from[i * step], 0);
  }
};
#endif

// total[p] += sum over k of left(p, k) * right[k], for `V` vectors of right.
template <typename M, int P, int V, typename Left>
inline __attribute__((always_inline)) void Accumulate(const Left& left, const typename M::Cell* right, Index length,
                                                      typename M::Vector (&total)[P][V]) {
  for (Index k = 0; k < length; ++k, right += V * M::kLanes) {
    typename M::Cells vectors[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) vectors[v] = *reinterpret_cast<const typename M::Cells*>(right + v * M::kLanes);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      const typename M::Cell cell = left(p, k);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) total[p][v] = M::Add(total[p][v], cell, vectors[v]);
    }
  }
}

}  // namespace warpjax

#endif  // WARPJAX_PRODUCTS_H_
