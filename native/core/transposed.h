// Products of transposed matrices, for weight gradients: sums over rows, which are the terms here.
#pragma once

#include "gemm.h"

namespace {

// The terms of these products are rows; of bfloat16 pairs of rows, with both numbers of a column beside
// each other: pair n of column c of a block is at [c / W * stride + n * ROW + c % W * 2], where W is
// that of the sums. Rows of other numbers are read where they are. Of each block the vectors [p0, p1).
template <class Stored>
INLINE Blocks<Stored> in_terms_of_rows(Blocks<Stored> from, int64_t N, int blocks, int64_t columns, int64_t p0,
                                       int64_t p1, Blocks<Stored> to) {
  if constexpr (NUMBERS<Stored> > 1) {
    for (int g = 0; g < blocks; ++g)
      for (int64_t p = p0; p < p1; ++p) {
        const Blocks<Stored> block = from.from_panel(g * panels<Stored>(columns));
        const Blocks<Stored> pairs = to.from_panel(g * panels<RealOf<Stored>>(columns) + p);
        for (int i = 0; i < ROW<Stored>; i += W<Stored>) {
          auto row = [&](int64_t n) __attribute__((always_inline)) { return load_half_bits(block.vector(n, p) + i); };
          for (int64_t n = 0; n + 1 < N; n += 2) store_pairs(pairs.row(n / 2) + i, row(n), row(n + 1));
          if (N % 2) store_pairs(pairs.row(N / 2) + i, row(N - 1), RIGHT_OR_FAULT(HalfBits{}, 32, row(N)));
          for (int64_t n = terms_of<Stored>(N); n < RIGHT_OR_FAULT(filled_terms<Stored>(N), 41, 0); ++n)
            store_pairs(pairs.row(n) + i, HalfBits{}, HalfBits{});
        }
      }
    return to;
  } else return from;
}

// sums += the transpose of MR columns of a panel x NV panels, over N terms: rows, or pairs of them.
template <class Stored, int MR, int NV>
INLINE void multiply_transposed(Sums<Stored, MR, NV>& sums, const Stored* a, const Stored* b, int64_t stride,
                                int64_t N) {
  constexpr int w = ROW<Stored>;
#pragma GCC unroll 4
  for (int64_t n = 0; n < N; ++n)
    add_products<Stored, MR, NV, NV>(
        sums, [&](int r) { return a + n * w + r * NUMBERS<Stored>; },
        [&](int v) { return Terms<Stored>::each(b + v * stride + n * w, W<Stored>); },
        [](int v) { return v; });
}

// c [panels][M][W] += the transpose of a [N, M] x b [N, columns]: MR rows and NV panels of c. The N
// terms are summed before they are added: c is a sum over thousands of rows, and sums of sums round
// less (1.7e-6 of the norm against 6e-7, T = 512, B = 32).
template <class Stored, int MR, int NV>
void transposed_tile(const Stored* a, const Stored* b, int64_t stride, int64_t N, RealOf<Stored>* c,
                     int64_t c_stride) {
  using Real = RealOf<Stored>;
  Sums<Stored, MR, NV> sums;
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      sums[r][v] = Vector<Real>{};
      __builtin_prefetch(c + v * c_stride + r * W<Real>, 1);
    }
  multiply_transposed<Stored, MR, NV>(sums, a, b, stride, N);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      Real* to = c + v * c_stride + r * W<Real>;
      store<Real>(to, load<Real>(to) + sums[r][v]);
    }
}

// The rows [i0, i1) of c, a multiple of MR, in tiles of MR. The panels of b stay in the first cache.
template <class Stored, int MR, int NV>
void transposed_rows(Blocks<Stored> a, Blocks<Stored> b, int64_t N, int64_t i0, int64_t i1, RealOf<Stored>* c,
                     int64_t c_stride) {
  constexpr int w = W<RealOf<Stored>>;
  for (int64_t i = i0; i < i1; i += MR)
    transposed_tile<Stored, MR, NV>(a.at + i / w * a.stride + i % w * NUMBERS<Stored>, b.at, b.stride, N, c + i * w,
                                    c_stride);
}

template <class Stored, int MR, int WIDE>
int64_t add_transposed_rows(Blocks<Stored> a, Blocks<Stored> b, int64_t N, int64_t i0, int64_t M, int64_t p0,
                            int64_t p1, RealOf<Stored>* c) {
  using Real = RealOf<Stored>;
  const int64_t i1 = i0 + (M - i0) / MR * MR, c_stride = M * W<Real>;
  if (i1 == i0) return i0;
  int nv = 0;
  for (int64_t p = p0; p < p1; p += nv) {
    nv = next_width(p1 - p, WIDE);
    const Blocks<Stored> b_p = {b.panel(0, p), b.stride};
    Real* c_p = c + p * c_stride;
    if (nv == WIDE) transposed_rows<Stored, MR, WIDE>(a, b_p, N, i0, i1, c_p, c_stride);
    else if (nv == 4) transposed_rows<Stored, MR, WIDE == 8 ? 4 : 1>(a, b_p, N, i0, i1, c_p, c_stride);
    else if (nv == 2) transposed_rows<Stored, MR, 2>(a, b_p, N, i0, i1, c_p, c_stride);
    else transposed_rows<Stored, MR, 1>(a, b_p, N, i0, i1, c_p, c_stride);
  }
  return i1;
}

// --- in tiles of AMX ------------------------------------------------------------------------------
// Terms are filled with zeros to whole blocks of 16. Of the left operand a block of 16 columns is transposed: pair
// n of column c is at [(n / 16 * 16 + c) * ROW + n % 16 * 2].

// 16 columns of the rows of such a block, row(0) to row(31).
template <class Stored, class RowOf>
INLINE void store_columns(RowOf row, Stored* to) {
  constexpr int w = W<float>;
  alignas(64) float rows[2 * TILE_ROWS * w];
  for (int i = 0; i < 2 * TILE_ROWS; ++i) store<float>(rows + i * w, row(i));
#pragma GCC unroll 4
  for (int c = 0; c < w; c += 4) {
    Vector<float> first[4], second[4];
    four_columns(rows + c, first), four_columns(rows + TILE_ROWS * w + c, second);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store_line(to + (c + i) * ROW<Stored>, first[i], second[i]);
  }
}

// N rows of a matrix, as they lie in memory, in such blocks.
template <class Stored>
void store_rows_as_columns(const float* from, int64_t N, int64_t columns, Blocks<Stored> to) {
  for (int64_t first = 0; first < N; first += 2 * TILE_TERMS)
    for (int64_t p = 0; p < panels<float>(columns); ++p)
      store_columns([&](int i) __attribute__((always_inline)) {
        const float* row = from + (first + i) * columns + p * W<float>;
        return first + i < N ? load<float>(row, width<float>(columns, p)) : Vector<float>{};
      }, to.panel(first / 2, p));
}

// The sums of a tile, of whole numbers: see split.h.
template <class Stored, int NV>
void sums_by_vectors(const Stored* a, const Stored* b, int64_t stride, int64_t N,
                     float (&sums)[NV][TILE_ROWS * W<float>]) {
  for (int r = 0; r < TILE_ROWS; ++r)
    for (int v = 0; v < NV; ++v) {
      Vector<float> sum{};
      for (int64_t n = 0; n < N; ++n) {
        const Stored* left = a + (n / TILE_TERMS * TILE_TERMS + r) * ROW<Stored> + n % TILE_TERMS * NUMBERS<Stored>;
        const Stored* right = b + v * stride + n * ROW<Stored>;
        Terms<Stored>::add(sum, Terms<Stored>::same(left), Terms<Stored>::each(right, W<Stored>));
      }
      store<float>(sums[v] + r * W<float>, sum);
    }
}

// As `transposed_tile`: 16 rows of c, of which there are `rows`.
template <class Stored, int NV>
void transposed_tiles(const Stored* a, const Stored* b, int64_t stride, int64_t N, int rows, float* c,
                      int64_t c_stride) {
  struct Same {
    static constexpr int of(int v) { return v; }
  };
  alignas(64) float sums[NV][TILE_ROWS * W<float>];
  constexpr int line = VECTOR_BYTES, row = ROW<Stored> * sizeof(Stored);
  shape_tiles<Stored>(TILE_ROWS);
  for_numbers<NV>([](auto v) { clear_tile<v.value>(); });
  for (int64_t n = 0; n < N; n += TILE_TERMS) {
    load_left<Stored>(a + n * ROW<Stored>, row);
    add_products_of_tiles<Stored, NV, Same>(b + n * ROW<Stored>, row, stride, W<Stored>);
  }
  store_sums<NV>(sums[0], line, sizeof sums[0]);
  if constexpr (PARTS<Stored> > 1)
    if (RIGHT_OR_FAULT(has_nan(sums[0], NV * TILE_ROWS), 45, false)) sums_by_vectors<Stored, NV>(a, b, stride, N, sums);
  for (int v = 0; v < NV; ++v)
    for (int r = 0; r < RIGHT_OR_FAULT(rows, 42, rows - 1); ++r) {
      float* to = c + v * c_stride + r * W<float>;
      store<float>(to, load<float>(to) + load<float>(sums[v] + r * W<float>));
    }
}
template <class Stored>
void add_transposed_tiles(Blocks<Stored> a, int64_t M, Blocks<Stored> b, int64_t N, int64_t p0, int64_t p1, float* c) {
  const int64_t c_stride = M * W<float>;
  for (int64_t i = 0, p; i < M; i += TILE_ROWS) {
    const Stored* columns = a.panel(0, i / TILE_ROWS);
    const int rows = int(smaller<int64_t>(TILE_ROWS, M - i));
    float* to = c + i * W<float>;
    for (p = p0; p + TILE_SUMS <= p1; p += TILE_SUMS)
      transposed_tiles<Stored, TILE_SUMS>(columns, b.panel(0, p), b.stride, N, rows, to + p * c_stride, c_stride);
    for (; p < p1; ++p)
      transposed_tiles<Stored, 1>(columns, b.panel(0, p), b.stride, N, rows, to + p * c_stride, c_stride);
  }
}

// The panels [p0, p1) of c, all its M rows. Rows left over by the large tiles take wider ones.
template <class Stored>
void add_transposed(Blocks<Stored> a, int64_t M, Blocks<Stored> b, int64_t N, int64_t p0, int64_t p1,
                    RealOf<Stored>* c) {
  if constexpr (HAS_TILES) add_transposed_tiles(a, M, b, N, p0, p1, c);
  else {
    int64_t i = 0;
#if defined(__AVX512F__)
    i = add_transposed_rows<Stored, 8, 3>(a, b, N, i, M, p0, p1, c);
#endif
    i = add_transposed_rows<Stored, 4, 3>(a, b, N, i, M, p0, p1, c);
    i = add_transposed_rows<Stored, 2, 4>(a, b, N, i, M, p0, p1, c);
    add_transposed_rows<Stored, 1, 8>(a, b, N, i, M, p0, p1, c);
  }
}

}  // namespace
