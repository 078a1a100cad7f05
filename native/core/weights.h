// The weight gradients of many steps: (11), (12).
//
//     dw_hh = sum_t (m * h_e)^T delta_t      dw_ih = sum_t x_t^T delta_t      db = sum_t delta_t
//
// Each slice sums its own, in panels of columns; FINISH adds those of all slices, in their order.
#pragma once

#include "forward.h"

namespace {

// dw_hh and dw_ih as [panels][rows][W], db as [panels][W]; null: not wanted.
template <class Real>
struct WeightSums {
  Real *hh, *ih, *b;

  void clear(const JrnnSizes& s, int64_t p0, int64_t p1) const {
    const size_t bytes = (p1 - p0) * W<Real> * sizeof(Real);
    if (hh) memset(hh + p0 * s.H * W<Real>, 0, bytes * s.H);
    if (ih) memset(ih + p0 * s.I * W<Real>, 0, bytes * s.I);
    if (b) memset(b + p0 * W<Real>, 0, bytes);
  }
};

// Some steps of some sequences: the operands of w_hh and w_ih, row after row.
template <class Real>
struct ChunkInputs {
  Blocks<Real> states, x;  // x.at null: ids, or inputs that are added as they are
};

template <class Real, class Cell>
void block_chunk(const Given<Real>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                 const ChunkInputs<Real>& to) {
  int64_t n = 0;
  for (int64_t t = t0; t < t1; ++t)
    for (int64_t r = 0; r < rows; ++r, ++n) {
      block_operand<Real, Cell>(in, in.entering(t, b0 + r), b0 + r, to.states.from(n));
      if (to.x.at) in.block_inputs(t, b0 + r, to.x.from(n));
    }
}

template <class Real>
void add_column_sums(Blocks<Real> deltas, int64_t rows, int64_t p0, int64_t p1, Real* sums) {
  for (int64_t p = p0; p < p1; ++p) {
    Vector<Real> sum{};
    for (int64_t n = RIGHT_OR_FAULT(0, 8, 1); n < rows; ++n) sum += load<Real>(deltas.panel(n, p));
    store<Real>(sums + p * W<Real>, load<Real>(sums + p * W<Real>) + sum);
  }
}

// The deltas of some steps, each to the row of w_ih that its id names: one after the other, so that
// equal ids add up. to(p, id): where panel p of a row is.
template <class Real, class To>
INLINE void add_rows_of_ids(const Given<Real>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                            Blocks<Real> deltas, int64_t p0, int64_t p1, To to) {
  int64_t n = 0;
  for (int64_t t = t0; t < t1; ++t)
    for (int64_t r = 0; r < rows; ++r, ++n) {
      const int64_t id = in.id(t, b0 + r);
      for (int64_t p = p0; p < p1 && id >= 0; ++p) {
        const int columns = width<Real>(in.H, p);
        Real* row = to(p, id);
        store<Real>(row, load<Real>(row, columns) + load<Real>(deltas.panel(n, p)), columns);
      }
    }
}

// All three sums of some steps, of the panels [p0, p1).
template <class Real>
void add_weight_gradients(const Given<Real>& in, int64_t b0, int64_t rows, int64_t t0, int64_t t1,
                          const ChunkInputs<Real>& inputs, Blocks<Real> deltas, int64_t p0, int64_t p1,
                          const WeightSums<Real>& sums) {
  const int64_t n = (t1 - t0) * rows;
  if (sums.hh) add_transposed<Real>(inputs.states, in.H, deltas, n, p0, p1, sums.hh);
  if (sums.ih && in.input == JRNN_IDS)
    add_rows_of_ids(in, b0, rows, t0, t1, deltas, p0, p1,
                    [&](int64_t p, int64_t id) { return sums.ih + (p * in.I + id) * W<Real>; });
  if (sums.ih && in.input == JRNN_VECTORS) add_transposed<Real>(inputs.x, in.I, deltas, n, p0, p1, sums.ih);
  if (sums.b) add_column_sums(deltas, n, p0, p1, sums.b);
}

// The panels [p0, p1) of `rows` rows, summed over n slices, into a row-major matrix [rows, H].
// part(q): the sums of slice q.
template <class Real, class PartOf>
INLINE void sum_slices(int64_t rows, int64_t H, int64_t n, int64_t p0, int64_t p1, PartOf part, Real* to) {
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at = (p * rows + i) * W<Real>;
      Vector<Real> sum = load<Real>(part(0) + at);
      for (int64_t q = 1; q < n - RIGHT_OR_FAULT(0, 9, 1); ++q) sum += load<Real>(part(q) + at);
      const int columns = width<Real>(H, p);
      store<Real>(to + i * H + p * W<Real>, sum, columns - (RIGHT_OR_FAULT(0, 10, 1) && columns < W<Real>));
    }
}

}  // namespace
