// From JAX's row-major layouts to panels.
#pragma once

#include "gemm.h"

namespace {

// A row of n numbers into blocks; the last panel is filled with zeros.
template <class Stored>
INLINE void block_row(Blocks<Stored> to, const RealOf<Stored>* from, int64_t n) {
  using Real = RealOf<Stored>;
  const int64_t count = panels<Real>(n);
  for (int64_t p = 0; p < count; ++p)
    store<Real>(to.vector(0, p), load<Real>(from + p * W<Real>, width<Real>(n, p)));
}
template <class Real>
INLINE void prefetch_row(const Real* from, int64_t n) {
  for (int64_t i = 0; i < n; i += LINE_BYTES / int64_t(sizeof(Real))) __builtin_prefetch(from + i);
}
template <class Stored>
INLINE void clear_row(Blocks<Stored> to, int64_t n) {
  using Real = RealOf<Stored>;
  const int64_t count = panels<Real>(n);
  for (int64_t p = 0; p < count; ++p) store<Real>(to.vector(0, p), Vector<Real>{});
}

// The rest of a panel that the last vector of a row leaves: whole panels are multiplied.
template <class Stored>
INLINE void clear_rest(Blocks<Stored> of, int64_t rows, int64_t n) {
  using Real = RealOf<Stored>;
  const int64_t count = panels<Real>(n);
  if (count % NUMBERS<Stored> == 0 || !of.at) return;
  for (int64_t r = 0; r < rows; ++r) store<Real>(of.vector(r, count), Vector<Real>{});
}

// A matrix in memory, whose number (k, column c) is at [k * row + c * column].
template <class Real>
struct Strided {
  const Real* at;
  int64_t row, column;
  Strided from_panel(int64_t p) const { return {at + p * W<Real> * column, row, column}; }
};

// A term of W columns, from row k of K on: columns and rows that are not there are zeros.
template <class Real>
INLINE void pack_term(Real* to, const Real* from, const Strided<Real>& w, int64_t k, int64_t K, int n) {
  if (k >= K) return store<Real>(to, Vector<Real>{});
  if (w.column == 1) return store<Real>(to, load<Real>(from, n));
  for (int c = 0; c < W<Real>; ++c) to[c] = c < n ? from[c * w.column] : Real(0);
}
template <class Stored>
INLINE void pack_pairs(Stored* to, const float* from, const Strided<float>& w, int64_t k, int64_t K, int n) {
  HalfBits rows[2][PARTS<Stored>]{};
  for (int i = 0; i < 2 && k + i < RIGHT_OR_FAULT(K, 33, K + 1); ++i) {
    alignas(64) float row[W<float>];
    pack_term(row, from + i * w.row, w, 0, 1, n);
    parts_of<Stored>(load<float>(row), rows[i]);
  }
  for (int i = 0; i < PARTS<Stored>; ++i) store_pairs(to + i * TermsOfPanel<Stored>::NEXT_PART, rows[0][i], rows[1][i]);
}
INLINE void pack_term(Bfloat16* to, const float* from, const Strided<float>& w, int64_t k, int64_t K, int n) {
  pack_pairs(to, from, w, k, K, n);
}
INLINE void pack_term(Split* to, const float* from, const Strided<float>& w, int64_t k, int64_t K, int n) {
  pack_pairs(to, from, w, k, K, n);
}

// The panels [p0, p0 + nv) of block g, from the K rows of a matrix and zeros up to `filled` rows, to row k0 on, in
// the order of a tile.
template <class Stored>
void pack_panels(const Strided<RealOf<Stored>>& w, const Packed<Stored>& to, int64_t k0, int64_t K, int64_t filled,
                 int64_t p0, int nv, int g) {
  using Order = TermsOfPanel<Stored>;
  const int vectors = nv * to.blocks;
  for (int v = 0; v < nv; ++v) {
    const int n = width<RealOf<Stored>>(to.columns, p0 + v);
    const RealOf<Stored>* from = w.at + (p0 + v) * W<RealOf<Stored>> * w.column;
    for (int64_t k = 0; k < filled; k += NUMBERS<Stored>) {
      const int64_t term = terms_of<Stored>(k0 + k), block = term / Order::BLOCK * Order::BLOCK;
      Stored* out = to.panel(p0) + block * vectors * ROW<Stored>;
      pack_term(out + Order::at(int(term - block), v * to.blocks + g, vectors), from + k * w.row, w, k, K, n);
    }
  }
}

// f(first panel, panels) for each tile of part i of n of a packed matrix.
template <class Stored, class F>
INLINE void for_panels(const Packed<Stored>& to, int64_t i, int64_t n, F f) {
  const int64_t count = to.count();
  int64_t at = 0;
  int nv = 0;
  for (int64_t p = 0; p < count; p += nv, ++at) {
    nv = next_width(count - p, to.widest);
    if (at % n == i) f(p, nv);
  }
}

// Part i of n of a matrix whose blocks are side by side: of(g) is block g.
template <class Stored, class BlockOf>
INLINE void pack(BlockOf of, const Packed<Stored>& to, int64_t i, int64_t n) {
  for_panels(to, i, n, [&](int64_t p, int nv) {
    for (int g = 0; g < to.blocks; ++g) pack_panels<Stored>(of(g), to, 0, to.K, filled_rows<Stored>(to.K), p, nv, g);
  });
}

// Part i of n of a matrix of `blocks` blocks of K rows, one below the other, each filled up with rows of
// zeros.
template <class Stored, class BlockOf>
INLINE void pack_below(BlockOf of, int blocks, int64_t K, const Packed<Stored>& to, int64_t i, int64_t n) {
  const int64_t each = blocks == 1 ? filled_rows<Stored>(K) : to.K / blocks;
  for_panels(to, i, n, [&](int64_t p, int nv) {
    for (int g = 0; g < blocks; ++g) pack_panels<Stored>(of(g), to, g * each, K, RIGHT_OR_FAULT(each, 25, K), p, nv, 0);
  });
}

}  // namespace
