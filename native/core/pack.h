// From JAX's row-major layouts to panels.
#pragma once

#include "gemm.h"

namespace {

// A row of n numbers into blocks; the last panel is filled with zeros.
template <class Real>
INLINE void block_row(Blocks<Real> to, const Real* from, int64_t n) {
  const int64_t count = panels<Real>(n);
  for (int64_t p = 0; p < count; ++p)
    store<Real>(to.panel(0, p), load<Real>(from + p * W<Real>, width<Real>(n, p)));
}
template <class Real>
INLINE void prefetch_row(const Real* from, int64_t n) {
  for (int64_t i = 0; i < n; i += LINE_BYTES / int64_t(sizeof(Real))) __builtin_prefetch(from + i);
}
template <class Real>
INLINE void clear_row(Blocks<Real> to, int64_t n) {
  const int64_t count = panels<Real>(n);
  for (int64_t p = 0; p < count; ++p) store<Real>(to.panel(0, p), Vector<Real>{});
}

// A matrix in memory, whose number (k, column c) is at [k * row + c * column].
template <class Real>
struct Strided {
  const Real* at;
  int64_t row, column;
};

// Rows [k0, k0 + K) of the panels [p0, p0 + nv) of block g, from the rows of a matrix, in the order of
// a tile; columns that are not there are zeros.
template <class Real>
void pack_panels(const Strided<Real>& w, const Packed<Real>& to, int64_t k0, int64_t K, int64_t p0, int nv, int g) {
  constexpr int w_ = W<Real>;
  const int64_t step = nv * to.blocks * w_;
  for (int v = 0; v < nv; ++v) {
    const int n = width<Real>(to.columns, p0 + v);
    Real* out = to.panel(p0) + k0 * step + (v * to.blocks + g) * w_;
    const Real* from = w.at + (p0 + v) * w_ * w.column;
    if (w.column == 1) {
      for (int64_t k = 0; k < K; ++k) store<Real>(out + k * step, load<Real>(from + k * w.row, n));
      continue;
    }
    for (int64_t k = 0; k < K; ++k)
      for (int c = 0; c < w_; ++c) out[k * step + c] = c < n ? from[k * w.row + c * w.column] : Real(0);
  }
}

// f(first panel, panels) for each tile of part i of n of a packed matrix.
template <class Real, class F>
INLINE void for_panels(const Packed<Real>& to, int64_t i, int64_t n, F f) {
  const int64_t count = to.count();
  int64_t at = 0;
  int nv = 0;
  for (int64_t p = 0; p < count; p += nv, ++at) {
    nv = next_width(count - p, to.widest);
    if (at % n == i) f(p, nv);
  }
}

// Part i of n of a matrix whose blocks are side by side: of(g) is block g.
template <class Real, class BlockOf>
INLINE void pack(BlockOf of, const Packed<Real>& to, int64_t i, int64_t n) {
  for_panels(to, i, n, [&](int64_t p, int nv) {
    for (int g = 0; g < to.blocks; ++g) pack_panels<Real>(of(g), to, 0, to.K, p, nv, g);
  });
}

// Part i of n of a matrix of `blocks` blocks of K rows, one below the other, each filled up with rows of
// zeros.
template <class Real, class BlockOf>
INLINE void pack_below(BlockOf of, int blocks, int64_t K, const Packed<Real>& to, int64_t i, int64_t n) {
  const int64_t each = to.K / blocks;
  for_panels(to, i, n, [&](int64_t p, int nv) {
    for (int g = 0; g < blocks; ++g) {
      pack_panels<Real>(of(g), to, g * each, K, p, nv, 0);
      memset(to.panel(p) + (g * each + K) * nv * W<Real>, 0, RIGHT_OR_FAULT(each - K, 25, 0) * nv * W<Real> * sizeof(Real));
    }
  });
}

}  // namespace
