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

// The panels [p0, p0 + nv) of a matrix whose number (k, column c) is at w[k * row + c * column], in
// the order of a tile; columns that are not there are zeros.
template <class Real>
void pack_panels(const Real* w, int64_t row, int64_t column, const Packed<Real>& to, int64_t p0, int nv) {
  constexpr int w_ = W<Real>;
  for (int v = 0; v < nv; ++v) {
    const int64_t c0 = (p0 + v) * w_;
    const int n = width<Real>(to.columns, p0 + v);
    Real* out = to.at + p0 * to.K * w_ + v * w_;
    const Real* from = w + c0 * column;
    if (column == 1) {
      for (int64_t k = 0; k < to.K; ++k) store<Real>(out + k * nv * w_, load<Real>(from + k * row, n));
      continue;
    }
    for (int64_t k = 0; k < to.K; ++k)
      for (int c = 0; c < w_; ++c) out[k * nv * w_ + c] = c < n ? from[k * row + c * column] : Real(0);
  }
}

// Part i of n of a whole matrix.
template <class Real>
void pack(const Real* w, int64_t row, int64_t column, const Packed<Real>& to, int64_t i, int64_t n) {
  const int64_t count = to.count();
  int64_t at = 0;
  int nv = 0;
  for (int64_t p = 0; p < count; p += nv, ++at) {
    nv = next_width(count - p, to.widest);
    if (at % n == i) pack_panels(w, row, column, to, p, nv);
  }
}

}  // namespace
