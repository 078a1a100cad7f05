// The weight gradients of many steps: (11), (12).
//
//     dw_hh = sum_t (m * h_e)^T delta_t      dw_ih = sum_t x_t^T delta_t      db = sum_t delta_t
//
// Each slice sums its own, in panels of columns; the last phase adds those of all slices, in their order. The
// panels of a block of deltas come one after the other, then those of the next block: x feeds the
// first blocks, h the last.
#pragma once

#include "forward.h"
#include "transposed.h"

namespace {

// f(first, end) for the panels [p0, p1) of each of some blocks of H columns; for all of them at once.
template <class Real, class F>
INLINE void for_blocks(int blocks, int64_t H, int64_t p0, int64_t p1, F f) {
  const int64_t count = panels<Real>(H);
  if (p1 - p0 == count) return f(0, blocks * count);
  for (int g = 0; g < blocks; ++g) f(g * count + RIGHT_OR_FAULT(p0, 28, p0 + (g > 0)), g * count + p1);
}

// dw_hh and dw_ih as [panels][rows][W], db as [panels][W]; null: not wanted.
template <class Real>
struct WeightSums {
  Real *hh, *ih, *b;

  void clear(const JrnnSizes& s, int64_t p0, int64_t p1) const {
    const CellBlocks blocks = blocks_of(s.cell);
    auto zero = [&](Real* sums, int64_t rows, int n) {
      if (!sums) return;
      for_blocks<Real>(n, s.H, p0, p1, [&](int64_t first, int64_t end) {
        memset(sums + first * rows * W<Real>, 0, (end - first) * rows * W<Real> * sizeof(Real));
      });
    };
    zero(hh, s.H, blocks.each), zero(ih, s.I, blocks.each), zero(b, 1, blocks.all);
  }
};

// Some steps of some sequences: the operands of w_hh and w_ih, row after row. x.at null: ids, or inputs that are
// added as they are.
template <class Stored>
struct ChunkInputs {
  Blocks<Stored> states, x;                                     // with tiles of AMX null, but where a_t needs them
  Blocks<Stored> states_in_terms, x_in_terms, deltas_in_terms;  // see transposed.h
};

template <class Stored>
void block_chunk(const Given<Stored>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                 const ChunkInputs<Stored>& to) {
  int64_t n = 0;
  for (int64_t t = t0; t < t1; ++t)
    for (int64_t r = 0; r < rows; ++r, ++n) {
      block_operand(in, in.entering(t, b0 + r), b0 + r, to.states.from(n));
      if (to.x.at) in.block_inputs(t, b0 + r, to.x.from(n));
    }
}

// For tiles of AMX: the operands as left tiles of transposed products.
template <class Stored>
void block_columns(const Given<Stored>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                   const ChunkInputs<Stored>& to) {
  constexpr int SOME = 2 * TILE_TERMS;
  Entering<Stored> entering[SOME];
  int64_t b[SOME];
  const float* x[SOME];
  const int64_t all = (t1 - t0) * rows;
  for (int64_t n0 = 0; n0 < all; n0 += SOME) {
    for (int i = 0; i < SOME; ++i) {
      const int64_t n = n0 + i, t = t0 + n / rows;
      b[i] = n < all ? b0 + n % rows : -1;
      if (n >= all) continue;
      entering[i] = in.entering(t, b[i]);
      x[i] = t < in.length(b[i]) ? in.xs + (t * in.B + b[i]) * in.I : nullptr;
    }
    for (int64_t p = 0; p < panels<float>(in.H); ++p)
      store_columns([&](int i) __attribute__((always_inline)) {
        return b[i] < 0 ? Vector<float>{} : operand_of(in, entering[i], b[i], p);
      }, to.states_in_terms.panel(n0 / 2, p));
    for (int64_t p = 0; p < panels<float>(in.I) && to.x_in_terms.at; ++p)
      store_columns([&](int i) __attribute__((always_inline)) {
        return b[i] < 0 || !x[i] ? Vector<float>{} : load<float>(x[i] + p * W<float>, width<float>(in.I, p));
      }, to.x_in_terms.panel(n0 / 2, p));
  }
}

// Of N terms, in several sums: one after the other they would round more, and each would wait for the last.
template <class Stored, class Real>
void add_column_sums(Blocks<Stored> deltas, int64_t N, int64_t p0, int64_t p1, Real* sums) {
  for (int64_t p = p0; p < p1; ++p) {
    Vector<Real> several[4]{};
    for (int64_t n = RIGHT_OR_FAULT(0, 8, 1); n < N; n += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        if (n + i < N) Terms<Stored>::add(several[i], Terms<Stored>::each(deltas.panel(n + i, p), W<Stored>));
    const Vector<Real> sum = (several[0] + several[1]) + (several[2] + several[3]);
    store<Real>(sums + p * W<Real>, load<Real>(sums + p * W<Real>) + sum);
  }
}

// The deltas of some steps, each to the row of w_ih that its id names: one after the other, so that
// equal ids add up. to(g, p, id): where panel p of block g of a row is.
template <class Stored, class To>
INLINE void add_rows_of_ids(const Given<Stored>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                            Blocks<Stored> deltas, int64_t p0, int64_t p1, To to) {
  using Real = RealOf<Stored>;
  int64_t n = 0;
  for (int64_t t = t0; t < t1; ++t)
    for (int64_t r = 0; r < rows; ++r, ++n) {
      const int64_t id = in.id(t, b0 + r);
      for (int g = 0; g < in.blocks.each && id >= 0; ++g)
        for (int64_t p = p0; p < p1; ++p) {
          const int columns = width<Real>(in.H, p);
          const Vector<Real> delta = load<Real>(deltas.from_panel(g * panels<Stored>(in.H)).vector(n, p));
          Real* row = to(g, p, id);
          store<Real>(row, load<Real>(row, columns) + delta, columns);
        }
    }
}

// All three sums of some steps, of the panels [p0, p1) of each block.
template <class Stored>
void add_weight_gradients(const Given<Stored>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                          const ChunkInputs<Stored>& inputs, Blocks<Stored> deltas, int64_t p0, int64_t p1,
                          const WeightSums<RealOf<Stored>>& sums) {
  using Real = RealOf<Stored>;
  const int64_t n = (t1 - t0) * rows, count = panels<Real>(in.H);
  const Blocks<Stored> each = in_terms_of_rows(deltas, n, in.blocks.all, in.H, p0, p1, inputs.deltas_in_terms);
  auto add = [&](Blocks<Stored> operand, Blocks<Stored> operand_in_terms, int64_t M, int first_block, Real* to) {
    Blocks<Stored> rows = operand_in_terms;
    if (!HAS_TILES) rows = in_terms_of_rows(operand, n, 1, M, 0, panels<Real>(M), operand_in_terms);
    for_blocks<Real>(in.blocks.each, in.H, p0, p1, [&](int64_t first, int64_t end) {
      add_transposed<Stored>(rows, M, each.from_panel(first_block * count), terms_of<Stored>(n), first, end, to);
    });
  };
  if (sums.hh) add(inputs.states, inputs.states_in_terms, in.H, in.blocks.first_of_h(), sums.hh);
  if (sums.ih && in.input == JRNN_IDS)
    add_rows_of_ids(in, b0, rows, t0, t1, deltas, p0, p1, [&](int g, int64_t p, int64_t id) {
      return sums.ih + ((g * count + p) * in.I + id) * W<Real>;
    });
  if (sums.ih && in.input == JRNN_VECTORS) add(inputs.x, inputs.x_in_terms, in.I, 0, sums.ih);
  for (int g = 0; g < in.blocks.all && sums.b; ++g)
    add_column_sums(each.from_panel(g * count), terms_of<Stored>(n), p0, p1, sums.b + g * count * W<Real>);
}

// The panels [p0, p1) of each of some blocks of `rows` rows, summed over n slices, into a row-major
// matrix [rows, blocks * H]. `next`: from the sums of a slice to those of the next. place(g): of a block
// in the matrix.
template <class Real, class PlaceOfBlock>
INLINE void sum_slices(int64_t rows, int64_t H, int blocks, int64_t n, int64_t p0, int64_t p1, const Real* first,
                       int64_t next, PlaceOfBlock place, Real* to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int g = 0; g < blocks; ++g)
      for (int64_t p = p0; p < p1; ++p) {
        const Real* from = first + ((g * panels<Real>(H) + p) * rows + i) * W<Real>;
        Vector<Real> sum = load<Real>(from);
        for (int64_t q = 1; q < n - RIGHT_OR_FAULT(0, 9, 1); ++q) sum += load<Real>(from + q * next);
        const int columns = width<Real>(H, p);
        Real* row = to + (i * blocks + place(g)) * H;
        store<Real>(row + p * W<Real>, sum, columns - (RIGHT_OR_FAULT(0, 10, 1) && columns < W<Real>));
      }
}

}  // namespace
