// Products of matrices, in tiles of MR rows x NV panels whose sums stay in registers.
//
// Operands are in panels of W columns, so that every address of an inner loop is a constant away
// from the last one:
//
//     blocks  [panels][rows][W]        states, inputs and deltas of some rows (`Blocks`)
//     packed  [panels / nv][K][nv][W]  a matrix of weights, in the order of its use (`Packed`)
//
// For tiles of AMX packed weights are [panels / nv][K / 16][nv][parts][16][W], and blocks [panels][rows][parts][W],
// both filled with zeros to whole tiles: a float has three parts (split.h), other numbers are one.
//
// Where a unit has several sums, the blocks of a pre-activation, a tile has all sums of its units: a
// panel is then a panel of units, with the W columns of each of its blocks one after the other.
//
// The inner loops read one number of the left operand for each row, and NV vectors of the right. Of
// bfloat16 they read a pair of numbers, the terms 2k and 2k + 1 of a sum, where they read one: in the
// left operand two columns, in packed weights two rows beside each other in every column. So a panel
// of blocks has twice the columns, and a matrix K / 2 terms.
#pragma once

#include "amx.h"
#include "split.h"

namespace {

// --- shapes of tiles ------------------------------------------------------------------------------
// MR * NV sums, NV vectors of weights and one broadcast number must fit the registers: 32 with
// AVX-512, else 16. Few rows take more panels: the latency of an FMA needs 8 sums at least.
// With AVX2, tiles of 6 x 2 have 0.87 of the peak but leave rows for 5 x 2, which has 0.57.

#if defined(__AVX512F__)
constexpr int REGISTERS = 32;
constexpr int MAX_ROWS = 8;
constexpr int WIDEST[MAX_ROWS + 1] = {0, 8, 8, 4, 4, 4, 4, 2, 2};
constexpr int WIDEST_OF_4[MAX_ROWS + 1] = {0, 2, 2, 1, 1, 1, 1, 0, 0};  // of 4 blocks
#else
constexpr int REGISTERS = 16;
constexpr int MAX_ROWS = 4;
constexpr int WIDEST[MAX_ROWS + 1] = {0, 8, 4, 3, 3};
constexpr int WIDEST_OF_4[MAX_ROWS + 1] = {0, 2, 1, 1, 0};
#endif
constexpr int widest_of(int rows, int blocks) { return blocks == 1 ? WIDEST[rows] : WIDEST_OF_4[rows]; }

// The most rows of a tile that is nv panels wide. With tiles of AMX it is 4 of them.
constexpr int rows_in_registers(int nv, int blocks) {
  int rows = MAX_ROWS;
  while (widest_of(rows, blocks) < nv) --rows;
  return rows;
}
constexpr int rows_of(int nv, int blocks) { return HAS_TILES ? TILE_ROWS : rows_in_registers(nv, blocks); }
constexpr int MOST_SUMS = HAS_TILES ? TILE_ROWS * TILE_SUMS : larger(MAX_ROWS * 4, 16);  // vectors

// The rows of the largest of the tiles that some rows are cut into, and how many panels it is wide.
constexpr int64_t largest(int64_t rows, int64_t most) {
  const int64_t tiles = (rows + most - 1) / most;
  return (rows + tiles - 1) / tiles;
}
constexpr int widest_for(int64_t rows, int blocks = 1) {
  if (HAS_TILES) return TILE_SUMS / blocks;
  return widest_of(largest(larger<int64_t>(rows, 1), rows_of(1, blocks)), blocks);
}

// The panels of the next tile, if `left` of them are left: a power of two, or 3.
constexpr int next_width(int64_t left, int widest) {
  if (widest == 3) return left == 4 ? 2 : int(smaller<int64_t>(left, 3));
  while (widest > left) widest /= 2;
  return widest;
}

// The panels of the tile that ends at panel `end`, if the first of `count` panels begins at 0.
constexpr int last_width(int64_t end, int64_t count, int widest) {
  if (widest == 3 && count > 1) {
    const int64_t pairs = count % 3 ? 3 - count % 3 : 0;  // tiles of 2 panels, which come last
    return end > count - 2 * pairs ? 2 : 3;
  }
  const int64_t left = end % widest;
  return left ? int(left & -left) : widest;
}

// --- inner loops ----------------------------------------------------------------------------------

template <class Stored, int MR, int NV>
using Sums = Vector<RealOf<Stored>>[MR][NV];

// A term of a sum: one number, or a pair of them in each lane. `next`: from a part of numbers to the next one.
template <class Stored>
struct Terms {
  typedef Vector<Stored> Lanes;
  static INLINE Lanes same(const Stored* p) { return broadcast<Stored>(*p); }
  static INLINE Lanes each(const Stored* p, int64_t) { return load<Stored>(p); }
  static INLINE void add(Vector<Stored>& sum, Lanes a, Lanes b) { sum += a * b; }
  static INLINE void add(Vector<Stored>& sum, Lanes a) { sum += a; }
};
template <>
struct Terms<Bfloat16> {
  typedef Bits<float> Lanes;
  static INLINE Lanes same(const Bfloat16* p) {
    uint32_t pair;
    memcpy(&pair, p, sizeof pair);
    return pair + Lanes{};
  }
  static INLINE Lanes each(const Bfloat16* p, int64_t) { return (Lanes)load<float>((const float*)p); }
  static INLINE void add(Vector<float>& sum, Lanes a, Lanes b) {
#if defined(__AVX512BF16__)
    sum = (Vector<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    sum += (Vector<float>)(a << 16) * (Vector<float>)(b << 16);
    sum += (Vector<float>)(a & 0xffff0000) * (Vector<float>)(b & 0xffff0000);
#endif
  }
  static INLINE void add(Vector<float>& sum, Lanes a) {
    sum += (Vector<float>)(a << 16), sum += (Vector<float>)(a & 0xffff0000);
  }
};
template <>
struct Terms<Split> {
  struct Lanes {
    Vector<float> even, odd;
  };
  static INLINE Lanes same(const Split* p) { return {broadcast(whole_number(p)), broadcast(whole_number(p + 1))}; }
  static INLINE Lanes each(const Split* p, int64_t next) {
    Lanes sum{};
    for (int i = 2; i >= 0; --i) {
      const Bits<float> pairs = (Bits<float>)load<float>((const float*)(p + i * next));
      sum.even += (Vector<float>)(pairs << 16), sum.odd += (Vector<float>)(pairs & 0xffff0000);
    }
    return sum;
  }
  static INLINE void add(Vector<float>& sum, Lanes a, Lanes b) { sum += a.even * b.even, sum += a.odd * b.odd; }
  static INLINE void add(Vector<float>& sum, Lanes a) { sum += a.even, sum += a.odd; }
};
template <class Stored>
constexpr int64_t terms_of(int64_t numbers) {
  return (numbers + NUMBERS<Stored> - 1) / NUMBERS<Stored>;
}

// The order of packed weights in a block of 16 terms (W of Real): vector after vector for tiles, else term after term.
template <class Stored>
struct TermsOfPanel {
  static constexpr int BLOCK = W<RealOf<Stored>>;
  static constexpr int64_t NEXT_PART = HAS_TILES ? BLOCK * W<Stored> : W<Stored>;
  // Where term k of vector v of NV is.
  static constexpr int64_t at(int k, int v, int NV) {
    return HAS_TILES ? v * BLOCK * ROW<Stored> + k * W<Stored> : (k * NV + v) * ROW<Stored>;
  }
};
// The terms, and the rows, that K rows are filled to.
template <class Stored>
constexpr int64_t filled_terms(int64_t K) {
  const int64_t block = HAS_TILES ? TILE_TERMS : 1;
  return (terms_of<Stored>(K) + block - 1) / block * block;
}
template <class Stored>
constexpr int64_t filled_rows(int64_t K) {
  return HAS_TILES ? filled_terms<Stored>(K) * NUMBERS<Stored> : K;
}

// One k: sums[r][to(v)] += left(r) * right(v), a number and the lanes of a vector.
template <class Stored, int MR, int NV, int ALL, class Left, class Right, class To>
INLINE void add_products(Sums<Stored, MR, ALL>& sums, Left left, Right right, To to) {
  using Lanes = typename Terms<Stored>::Lanes;
  if constexpr (MR * ALL + NV + 1 > REGISTERS && MR < NV) {  // then the left operand stays in them
    Lanes a[MR];
#pragma GCC unroll 8
    for (int r = 0; r < MR; ++r) a[r] = Terms<Stored>::same(left(r));
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const Lanes b = right(v);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) Terms<Stored>::add(sums[r][to(v)], a[r], b);
    }
    return;
  }
  Lanes b[NV];
#pragma GCC unroll 8
  for (int v = 0; v < NV; ++v) b[v] = right(v);
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    const Lanes a = Terms<Stored>::same(left(r));
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) Terms<Stored>::add(sums[r][to(v)], a, b[v]);
  }
}

// Rows that a later step reads, of some arrays: their prefetch is spread over the terms of a
// tile. One burst would fill the line buffers: 12.15 instead of 11.3 ms for the backward pass at
// T = 512, B = 32, I = 128, H = 256, and 8.7 instead of 7.8 at 784, 64, 1, 128 (AMD EPYC, Zen 5).
// To the second cache: in the first, rows of arrays that begin at the same place of a page drive out each other and
// the weights. The gradient at 784, 64, 1, 128 takes 0.92 of the time (AMD EPYC, family 25, model 17, November 2026).
struct ArrayAhead {
  const void* at = nullptr;
  int size = 0;  // of an element
  template <class Element>
  static ArrayAhead of(const Element* at) {
    return {at, sizeof(Element)};
  }
};
struct Ahead {
  const ArrayAhead* arrays = nullptr;
  int count = 0;
  int64_t at = 0, stride = 0;     // the first row of a tile, and from a row to the next
  const char* weights = nullptr;  // of a later range, for the second cache: see for_tiles_in_ranges
};
INLINE Ahead no_prefetch(int64_t, int64_t) { return {}; }
constexpr int SEVERAL = 4;  // tiles that use a range together: each prefetches its part of the next one
template <class Real, int PANELS, int NV>
struct Prefetch {
  static constexpr int LINES = (PANELS * VECTOR_BYTES + LINE_BYTES - 1) / LINE_BYTES;  // of a row
  static constexpr int OF_WEIGHTS = W<Real> * NV * VECTOR_BYTES / LINE_BYTES / SEVERAL;
  const Ahead& ahead;
  int per_block, next;
  const char* weights;
  INLINE Prefetch(const Ahead& those, int rows, int64_t terms)
      : ahead(those), per_block(0), next(0), weights(those.weights) {
    if (those.count) per_block = int((rows * LINES * W<Real> + terms - 1) / larger<int64_t>(terms, 1));
  }
  INLINE void operator()() {
    if (weights) {
#pragma GCC unroll 16
      for (int i = 0; i < OF_WEIGHTS; ++i, weights += LINE_BYTES) __builtin_prefetch(weights, 0, 2);
    }
    for (int i = 0; i < per_block; ++i, ++next) {
      const int64_t at = ahead.at + next / LINES * ahead.stride + next % LINES * (LINE_BYTES / sizeof(Real));
      for (int n = 0; n < ahead.count; ++n)
        __builtin_prefetch((const char*)ahead.arrays[n].at + at * ahead.arrays[n].size, 0, 2);
    }
  }
};

// A panel of units has ALL sums; a term feeds EACH of them, the first or the last.
template <int ALL, int EACH>
struct Fed {
  static constexpr int all = ALL, each = EACH;
  static constexpr bool differ = ALL != EACH;
};
using Alone = Fed<1, 1>;

// sums += rows of blocks x packed weights, K terms, for the sums from block FIRST on. `stride`: from a
// block of rows to the next. The last terms come first if `back`: see for_tiles.
template <class Stored, int MR, int PANELS, class Of, int FIRST>
INLINE void multiply(Sums<Stored, MR, PANELS * Of::all>& sums, const Stored* a, int64_t stride, const Stored* b,
                     int64_t K, bool back, const Ahead& ahead) {
  constexpr int lanes = W<RealOf<Stored>>, w = ROW<Stored>, NV = PANELS * Of::each;
  Prefetch<RealOf<Stored>, PANELS, NV> prefetch(ahead, MR, K);
  const Stored *a_rest = a + K / lanes * stride, *b_rest = b + K / lanes * lanes * NV * w;
  int64_t a_step = stride, b_step = lanes * NV * w;
  if (back) a = a_rest - stride, b = b_rest - b_step, a_step = -a_step, b_step = -b_step;
  auto term = [&](const Stored* a_0, const Stored* b_0, int k) __attribute__((always_inline)) {
    using Order = TermsOfPanel<Stored>;
    add_products<Stored, MR, NV, PANELS * Of::all>(
        sums, [&](int r) { return a_0 + k * NUMBERS<Stored> + r * w; },
        [&](int v) { return Terms<Stored>::each(b_0 + Order::at(k, v, NV), Order::NEXT_PART); },
        [](int v) { return v / Of::each * Of::all + FIRST + v % Of::each; });
  };
  for (int64_t i = 0; i < K / lanes; ++i, a += a_step, b += b_step) {
    prefetch();
#pragma GCC unroll 4
    for (int k = 0; k < lanes; ++k) term(a, b, k);
  }
  for (int k = 0; k < int(K % lanes); ++k) term(a_rest, b_rest, k);
}

// --- tiles ----------------------------------------------------------------------------------------

// Blocks of some rows: number (r, c) is at [c / W * stride + r * ROW + c % W].
template <class Stored>
struct Blocks {
  Stored* at;
  int64_t stride;
  Stored* row(int64_t r) const { return at + r * ROW<Stored>; }
  Stored* panel(int64_t r, int64_t p) const { return at + p * stride + r * ROW<Stored>; }
  // The numbers of a vector of sums, which is vector p of a row.
  Stored* vector(int64_t r, int64_t p) const {
    constexpr int n = NUMBERS<Stored>;
    return panel(r, p / n) + p % n * W<RealOf<Stored>>;
  }
  Blocks from(int64_t r) const { return {row(r), stride}; }
  Blocks from_panel(int64_t p) const { return {at + p * stride, stride}; }
};

// A matrix of weights [K, columns], `blocks` of them side by side; panel p begins at
// [p * blocks * filled_terms(K) * ROW].
template <class Stored>
struct Packed {
  Stored* at;
  int64_t K, columns;
  int widest, blocks;
  int64_t count() const { return panels<RealOf<Stored>>(columns); }
  Stored* panel(int64_t p) const { return at + p * blocks * filled_terms<Stored>(K) * ROW<Stored>; }
};

// A product that is part of a sum: rows x weights.
template <class Stored>
struct Term {
  Blocks<Stored> rows;
  Packed<Stored> weights;
  bool to_last = false;  // feeds the last blocks of a unit, where not all
};

// What the sums begin with: number (r, column c of panel p) is at [r * row + p * panel + c].
template <class Real>
struct Start {
  const Real* at;
  int64_t row, panel;
  Start from(int64_t r, int64_t p) const { return {at + r * row + p * panel, row, panel}; }
};

// The sums of one tile, [MR][PANELS * blocks][W], from row r and panel p on.
template <class Stored, int MR, int PANELS, class Of>
void tile(const Start<RealOf<Stored>>& start, const Term<Stored>* products, int n, bool back, const Ahead& ahead,
          int64_t r0, int64_t p0, RealOf<Stored>* out) {
  using Real = RealOf<Stored>;
  constexpr int NV = PANELS * Of::all;
  Sums<Stored, MR, NV> sums;
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v)
      sums[r][v] = load<Real>(start.at + (r0 + r) * start.row + (p0 * Of::all + v) * start.panel);
  for (int i = 0; i < n; ++i) {
    const Term<Stored>& t = products[back ? n - 1 - i : i];
    const Ahead then = i + 1 < n ? Ahead{} : ahead;
    const Stored* weights = t.weights.panel(p0);
    const int64_t K = terms_of<Stored>(t.weights.K);
    if (Of::differ && t.to_last)
      multiply<Stored, MR, PANELS, Of, Of::all - Of::each>(sums, t.rows.row(r0), t.rows.stride, weights, K, back, then);
    else multiply<Stored, MR, PANELS, Of, 0>(sums, t.rows.row(r0), t.rows.stride, weights, K, back, then);
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) store<Real>(out + (r * NV + v) * W<Real>, sums[r][v]);
}

template <class Stored>
using Tile = void (*)(const Start<RealOf<Stored>>&, const Term<Stored>*, int, bool, const Ahead&, int64_t, int64_t,
                      RealOf<Stored>*);

template <class Stored, int MR, class Of>
Tile<Stored> tile_of(int panels) {
  constexpr int most = widest_of(MR, Of::all);
  if (most >= 8 && panels == 8) return tile<Stored, MR, most >= 8 ? 8 : 1, Of>;
  if (most >= 4 && panels == 4) return tile<Stored, MR, most >= 4 ? 4 : 1, Of>;
  constexpr bool threes = Of::all == 1 && WIDEST[MAX_ROWS] == 3;  // rows left over by the largest tiles take 3, too
  if (threes && panels == 3) return tile<Stored, MR, threes ? 3 : 1, Of>;
  if (most >= 2 && panels == 2) return tile<Stored, MR, most >= 2 ? 2 : 1, Of>;
  return tile<Stored, MR, 1, Of>;
}
template <class Stored, class Of>
Tile<Stored> tile_of(int rows, int panels) {
  constexpr int most = rows_in_registers(1, Of::all);
  switch (rows) {
    case 1: return tile_of<Stored, 1, Of>(panels);
    case 2: return tile_of<Stored, 2, Of>(panels);
    case 3: return tile_of<Stored, 3, Of>(panels);
    case 4: return tile_of<Stored, smaller(4, most), Of>(panels);
    case 5: return tile_of<Stored, smaller(5, most), Of>(panels);
    case 6: return tile_of<Stored, smaller(6, most), Of>(panels);
    case 7: return tile_of<Stored, smaller(7, most), Of>(panels);
    case 8: return tile_of<Stored, smaller(8, most), Of>(panels);
  }
  return nullptr;
}

// The range of a product from term k on, for the rows from r and nv panels from p on.
template <class Stored, class Of>
INLINE Term<Stored> range_of(const Term<Stored>& t, int64_t k, int64_t size, int64_t r, int64_t p, int nv) {
  const Packed<Stored>& w = t.weights;
  const int64_t terms = size - RIGHT_OR_FAULT(0, 38, 1);
  const int64_t K = smaller(w.K - k * NUMBERS<Stored>, terms * NUMBERS<Stored>);
  Stored* at = w.panel(p) + k * nv * Of::each * ROW<Stored>;
  // Field by field: vectors that were just written in other pieces are copied when they have left for the cache. A
  // pass of one sequence at H = 128 takes 0.91 of the time (AMD EPYC, family 25, model 17, November 2026).
  return {t.rows.from(r).from_panel(k / W<RealOf<Stored>>), {at, K, w.columns, w.widest, w.blocks}, t.to_last};
}

// --- tiles of AMX ---------------------------------------------------------------------------------

// The sum that vector v of the weights feeds, as in `multiply`.
template <int FIRST, class Of>
struct ToSum {
  static constexpr int of(int v) { return v / Of::each * Of::all + FIRST + v % Of::each; }
};
// Sums in tiles += rows of blocks x packed weights, of whole blocks of 16 terms.
template <class Stored, int PANELS, class Of, int FIRST>
INLINE void multiply_tiles(const Stored* a, int64_t stride, const Stored* b, int64_t K, int rows, bool back,
                           const Ahead& ahead, Beside beside) {
  constexpr int NV = PANELS * Of::each, line = VECTOR_BYTES;
  Prefetch<float, PANELS, NV> prefetch(ahead, rows, K);
  int64_t a_step = stride, b_step = TILE_TERMS * NV * ROW<Stored>;
  const int64_t n = K / TILE_TERMS;
  // The store of a tile takes 260 ns, as long as 50 products, if more than 128 products came since the last store. So
  // a tile is stored to nowhere after each 96: from K = 192 on 0.80 to 0.88 of the time in a bare loop, 0.97 of a
  // forward pass at H = 256 (Intel Xeon, family 6, model 167, November 2026).
  constexpr int PRODUCTS = NV * PARTS<Stored> * (PARTS<Stored> + 1) / 2, BLOCKS = larger(1, 96 / PRODUCTS);
  alignas(64) char nowhere[VECTOR_BYTES];
  if (back) a += (n - 1) * a_step, b += (n - 1) * b_step, a_step = -a_step, b_step = -b_step;
  for (int64_t i = 0; i < n; ++i, a += a_step, b += b_step) {
    prefetch();
    load_left<Stored>(a, ROW<Stored> * sizeof(Stored));
    add_products_of_tiles<Stored, NV, ToSum<FIRST, Of>>(b, line, TILE_TERMS * ROW<Stored>, TILE_TERMS * W<Stored>,
                                                        beside);
    if (i % BLOCKS == 0) store_tile<LEFT + PARTS<Stored>>(nowhere, 0);
  }
}
// As `tile`. Both operands are filled with zeros to whole blocks of 16 terms.
template <class Stored, int PANELS, class Of>
void tile_of_tiles(int rows, Beside beside, const Start<float>& start, const Term<Stored>* products, int n, bool back,
                   const Ahead& ahead, int64_t r0, int64_t p0, float* out) {
  constexpr int NV = PANELS * Of::all, line = VECTOR_BYTES;
  shape_tiles<Stored>(rows);
  load_sums<NV>(start.at + r0 * start.row + p0 * Of::all * start.panel, start.row * sizeof(float),
                start.panel * sizeof(float));
  for (int i = 0; i < n; ++i) {
    const Term<Stored>& t = products[back ? n - 1 - i : i];
    const Ahead then = i + 1 < n ? Ahead{} : ahead;
    const Stored *a = t.rows.row(r0), *b = t.weights.panel(p0);
    const int64_t K = filled_terms<Stored>(t.weights.K) - RIGHT_OR_FAULT(0, 40, TILE_TERMS);
    if (Of::differ && t.to_last)
      multiply_tiles<Stored, PANELS, Of, Of::all - Of::each>(a, t.rows.stride, b, K, rows, back, then, beside);
    else multiply_tiles<Stored, PANELS, Of, 0>(a, t.rows.stride, b, K, rows, back, then, beside);
  }
  store_sums<NV>(out, NV * line, line);
}

// --- all of a product -----------------------------------------------------------------------------

// The tile of some rows and panels: see `tile`.
template <class Stored, class Of, class... Rest>
INLINE void run_tile(int rows, int panels, Beside beside, Rest&&... rest) {
  if constexpr (HAS_TILES) {
    if constexpr (Of::all == 1) {
      if (panels == 4) return tile_of_tiles<Stored, 4, Of>(rows, beside, rest...);
      if (panels == 2) return tile_of_tiles<Stored, 2, Of>(rows, beside, rest...);
    }
    tile_of_tiles<Stored, 1, Of>(rows, beside, rest...);
  } else tile_of<Stored, Of>(rows, panels)(rest...);
}

// The rows [r0, r0 + rows) and panels [p0, p0 + panels) of a product, and where its sums are.
template <class Real>
struct Part {
  int64_t r0, p0;
  int rows, panels, nv;  // nv: vectors in a row
  Real* sums;
  int64_t count() const { return int64_t(rows) * nv; }
  INLINE Vector<Real> at(int r, int v) const { return load<Real>(sums + (r * nv + v) * W<Real>); }
  Part rows_from(int64_t begin, int64_t end) const {
    return {r0 + begin, p0, int(end - begin), panels, nv, sums + begin * nv * W<Real>};
  }
};

// Tile i of n tiles of some rows, for nv panels of ALL sums from panel p on.
template <int ALL, class Real>
INLINE Part<Real> part_of(int64_t rows, int64_t i, int64_t n, int64_t p, int nv, Real* sums) {
  const int64_t r = rows * i / n, r_end = rows * (i + 1) / n;
  return {r, p, int(r_end - r), nv, nv * ALL, sums};
}

// Numbers in parts: rows of sums with NaN are computed again, of whole numbers (split.h).
template <class Stored, class Of>
INLINE void compute_again(const Start<RealOf<Stored>>& start, const Term<Stored>* products, int n,
                          const Part<RealOf<Stored>>& part) {
  if constexpr (PARTS<Stored> > 1) {
    if (__builtin_expect(!RIGHT_OR_FAULT(has_nan(part.sums, part.count()), 44, false), 1)) return;
    for (int r = 0; r < part.rows; ++r) {
      float* row = part.sums + r * part.nv * W<float>;
      if (!has_nan(row, part.nv)) continue;
      tile_of<Stored, 1, Of>(part.panels)(start, products, n, false, Ahead{}, part.r0 + r, part.p0, row);
    }
  }
}

// The pieces that there is room for beside the products of a tile.
template <class Stored, class Of>
INLINE int64_t rooms_beside(const Term<Stored>* products, int n, int panels) {
  int64_t blocks = 0;
  for (int i = 0; i < n; ++i) blocks += filled_terms<Stored>(products[i].weights.K) / TILE_TERMS;
  return blocks * rooms_of(panels * Of::each);
}

// f(p, nv) for the nv panels from p on of each tile, the last ones first if `back`.
template <class F>
INLINE void for_widths(int64_t count, int widest, bool back, F f) {
  for (int64_t done = 0; done < count;) {
    const int nv = back ? last_width(count - done, count, widest) : next_width(count - done, widest);
    f(back ? count - done - nv : done, nv);
    done += nv;
  }
}

// How many terms of weights, of so many vectors each, are a range: they stay in a first cache of 32 KB beside
// the rows. 0 if all terms of a panel do.
template <class Stored>
INLINE int64_t size_of_range(const Term<Stored>* products, int n, int vectors) {
  constexpr int64_t FIT = 1 << 15, LARGEST = 3 << 13, lanes = W<RealOf<Stored>>;
  int64_t terms = 0;
  for (int i = 0; i < n; ++i) terms = larger(terms, terms_of<Stored>(products[i].weights.K));
  const int64_t bytes = terms * vectors * VECTOR_BYTES, ranges = (bytes + LARGEST - 1) / LARGEST;
  return bytes <= FIT ? 0 : ((terms + ranges - 1) / ranges + lanes - 1) / lanes * lanes;
}

// Whether the weights of a step are larger than a second cache, and are read from the third.
template <class Stored, class Of>
INLINE bool are_far(const Term<Stored>* products, int n) {
  constexpr int64_t SECOND_CACHE = 1 << 20;
  int64_t vectors = 0;
  for (int i = 0; i < n; ++i) {
    const Packed<Stored>& weights = products[i].weights;
    vectors += terms_of<Stored>(weights.K) * weights.count() * Of::each;
  }
  return vectors * VECTOR_BYTES > SECOND_CACHE;
}

// As for_tiles. A range is used for several tiles before the next one, and their sums wait in the first
// cache: the gradient of an LSTM takes 0.94 of the time, and of a GRU 0.96 (T, B, H = 64, 32, 256; two cores,
// Intel Xeon, family 6, model 207, November 2026). Of weights that are far, the first tiles prefetch the next
// range: the gradient at B, I, H = 256, 512, 1024 takes 0.94 to 0.97 of the time, of a GRU at 64, 256, 512 0.96.
template <class Stored, class Of, class AheadOf, class Finish>
INLINE void for_tiles_in_ranges(int64_t rows, int64_t tiles, int64_t size, const Start<RealOf<Stored>>& start,
                                const Term<Stored>* products, int n, bool back, AheadOf ahead, Finish finish) {
  using Real = RealOf<Stored>;
  constexpr int64_t SIZE = MOST_SUMS * W<Real>;
  alignas(64) Real sums[SEVERAL * SIZE];
  Part<Real> parts[SEVERAL];
  const bool far = are_far<Stored, Of>(products, n);
  for_widths(products[0].weights.count(), products[0].weights.widest, back, [&](int64_t p, int nv) {
    for (int64_t first = 0; first < tiles; first += SEVERAL) {
      const int together = int(smaller<int64_t>(SEVERAL, tiles - first));
      for (int i = 0; i < together; ++i) parts[i] = part_of<Of::all>(rows, first + i, tiles, p, nv, sums + i * SIZE);
      for (const Term<Stored>* t = products; t < products + n; ++t)
        for (int64_t k = 0; k < terms_of<Stored>(t->weights.K); k += size)
          for (int i = 0; i < together; ++i) {
            const Part<Real>& part = parts[i];
            const Term<Stored> range = range_of<Stored, Of>(*t, k, size, part.r0, p, nv);
            const bool begins = t == products && !RIGHT_OR_FAULT(k, 39, 0);
            const Start<Real> so_far = {part.sums, part.nv * W<Real>, W<Real>};
            const Start<Real> from = begins ? start.from(part.r0, p * Of::all) : so_far;
            Ahead then = begins ? ahead(part.r0, p) : Ahead{};
            const int64_t bytes = terms_of<Stored>(range.weights.K) * nv * Of::each * VECTOR_BYTES;
            if (far && !first) then.weights = (const char*)range.weights.at + bytes + i * bytes / SEVERAL;
            run_tile<Stored, Of>(part.rows, nv, Beside{}, from, &range, 1, false, then, 0, 0, part.sums);
          }
      for (int i = 0; i < together; ++i) {
        compute_again<Stored, Of>(start, products, n, parts[i]);
        finish(parts[i]);
      }
    }
  });
}

// start + all products, for some rows and all columns, in tiles; each goes to finish(part) while it is
// in the cache. ahead(r, p): what to prefetch. The products share their columns. A panel of weights is
// used for all rows before the next one.
//
// Weights are read forth and back in turn, from tile to tile and, by `turn`, from step to step: of
// weights larger than a cache, the part that was read last is still there. Several tiles read a panel
// larger than the first cache range by range.
//
// With tiles of AMX the rows of a tile are finished beside the products of the next one, before its sums are stored:
// an Elman gradient takes 0.87 to 0.95 of the time of one after the other, of an LSTM and a GRU 0.87 (T, B, I, H =
// 512, 32, 128, 256 and 128, 64, 256, 512; Intel Xeon, family 6, model 167, November 2026).
template <class Stored, class Of = Alone, class AheadOf, class Finish>
INLINE void for_tiles(int64_t rows, const Start<RealOf<Stored>>& start, const Term<Stored>* products, int n,
                      int64_t turn, AheadOf ahead, Finish finish) {
  using Real = RealOf<Stored>;
  alignas(64) Real sums[MOST_SUMS * W<Real>];
  const int widest = products[0].weights.widest, most = rows_of(widest, Of::all);
  const int64_t tiles = (rows + most - 1) / most, size = size_of_range(products, n, widest * Of::each);
  if (PARTS<Stored> == 1 && tiles > 1 && size)  // parts have more products than a second cache needs to bring them
    return for_tiles_in_ranges<Stored, Of>(rows, tiles, size, start, products, n, turn & 1, ahead, finish);
  Part<Real> before{};
  Pieces unfinished([&](int64_t begin, int64_t end) {
    const Part<Real> some = before.rows_from(begin, end);
    compute_again<Stored, Of>(start, products, n, some);
    finish(some);
  });
  for_widths(products[0].weights.count(), widest, turn & 1, [&](int64_t p, int nv) {
    for (int64_t i = 0; i < tiles; ++i) {
      const bool back = (turn * tiles + i) & 1;
      const Part<Real> part = part_of<Of::all>(rows, i, tiles, p, nv, sums);
      const Beside beside = unfinished.beside(rooms_beside<Stored, Of>(products, n, nv));
      run_tile<Stored, Of>(part.rows, nv, beside, start, products, n, back, ahead(part.r0, p), part.r0, p, sums);
      before = part, unfinished.begin(part.rows);
      if (!HAS_TILES) unfinished.end();
    }
  });
  unfinished.end();
}

}  // namespace
