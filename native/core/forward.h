// The forward pass: (1), (2), (15), (29).
//
//     a_t = x_t w_ih + (m * h_e) w_hh + b          h_e = output(e_{t-1})
//
// in one accumulation, and the step of the cell while a tile of a_t is in the first cache.
#pragma once

#include "cells.h"
#include "given.h"

namespace {

// Fewer rows than this read all of w_ih for little work. Their inputs, and ids, are projected for
// several steps at once: `STEP_ROWS` rows.
constexpr int64_t FEW_ROWS = 6, STEP_ROWS = 16;

// m * h_e of one row, into blocks.
template <class Real, class Cell>
INLINE void block_operand(const Given<Real>& in, const Entering<Real>& e, int64_t b, Blocks<Real> to) {
  const int64_t count = panels<Real>(in.H);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t j = p * W<Real>;
    const int n = width<Real>(in.H, p);
    Vector<Real> h = e.output ? load<Real>(e.output + j, n) : Cell::output(load<Real>(e.state + j, n));
    if (in.mask) h *= load<Real>(in.mask.row(b) + j, n);
    store<Real>(to.panel(0, p), h);
  }
}

// The bias, padded to whole panels.
template <class Real>
void pad_bias(const Given<Real>& in, Real* to) {
  for (int64_t p = 0; p < panels<Real>(in.H); ++p) {
    Vector<Real> b{};
    if (in.b) b = load<Real>(in.b + p * W<Real>, width<Real>(in.H, p));
    store<Real>(to + p * W<Real>, b);
  }
}

template <class Real>
struct ForwardScratch {
  Packed<Real> w_ih, w_hh;
  Real *bias, *zeros;
  Blocks<Real> operand, next, x, projected;

  static bool projects(const JrnnSizes& s) { return s.input != JRNN_VECTORS || rows_of_group(s) < FEW_ROWS; }
  static int64_t steps_projected(const JrnnSizes& s) {
    return smaller(s.T, larger<int64_t>(1, STEP_ROWS / rows_of_group(s)));
  }
  void shared(const JrnnSizes& s, Arena& arena) {
    const int64_t rows = rows_of_group(s);
    if (s.input == JRNN_VECTORS)
      w_ih = arena.packed<Real>(s.I, s.H, widest_for(projects(s) ? rows * steps_projected(s) : rows));
    w_hh = arena.packed<Real>(s.H, s.H, widest_for(rows));
    bias = arena.take<Real>(panels<Real>(s.H) * W<Real>);
    zeros = arena.take<Real>(s.H);
  }
  void own(const JrnnSizes& s, Arena& arena) {
    const int64_t rows = rows_of_group(s), several = projects(s) ? rows * steps_projected(s) : 0;
    operand = arena.blocks<Real>(rows, s.H);
    next = arena.blocks<Real>(rows, s.H);
    if (s.input == JRNN_VECTORS) x = arena.blocks<Real>(larger(rows, several), s.I);
    projected = arena.blocks<Real>(several, s.H);
  }
};

// Some rows of the batch, through all steps.
template <class Real, class Cell>
struct ForwardGroup {
  const Given<Real>& in;
  ForwardScratch<Real> mem;
  int64_t b0, rows;
  Real *hs, *kept;
  Rows<Real> last;

  void run(const JrnnSizes& s) {
    const int64_t steps = in.longest(b0, rows);
    const int64_t several = ForwardScratch<Real>::projects(s) ? ForwardScratch<Real>::steps_projected(s) : 0;
    for (int64_t r = 0; r < rows; ++r) {
      if (last && !in.length(b0 + r)) memcpy(last.row(b0 + r), in.start.row(b0 + r), in.H * sizeof(Real));
      block_operand<Real, Cell>(in, {in.start.row(b0 + r), nullptr}, b0 + r, mem.operand.from(r));
    }
    for (int64_t t = 0; t < steps; ++t) {
      if (several && t % several == 0) project(t, smaller(steps, t + several));
      enter_resets(t);
      step(t, several ? t % several : -1);
      const Blocks<Real> used = mem.operand;
      mem.operand = mem.next, mem.next = used;
    }
    for (int64_t t = steps; t < in.T; ++t) pad(t);
  }

  // x_t w_ih + b of the steps [t0, t1), row after row.
  void project(int64_t t0, int64_t t1) {
    for (int64_t t = t0, n = 0; t < t1; ++t)
      for (int64_t r = 0; r < rows; ++r, ++n)
        if (in.input == JRNN_VECTORS) in.block_inputs(t, b0 + r, mem.x.from(n));
        else look_up(t, b0 + r, mem.projected.from(n));
    if (in.input != JRNN_VECTORS) return;
    const Term<Real> x = {mem.x, mem.w_ih};
    for_tiles<Real>((t1 - t0) * rows, bias(), &x, 1, 0, no_prefetch, [&](const Part<Real>& part) {
      for (int r = 0; r < part.rows; ++r)
        for (int v = 0; v < part.nv; ++v)
          store<Real>(mem.projected.panel(part.r0 + r, part.p0 + v), part.at(r, v));
    });
  }
  Start<Real> bias() const { return {mem.bias, 0, W<Real>}; }
  static Ahead<Real> no_prefetch(int64_t, int64_t) { return {}; }

  void look_up(int64_t t, int64_t b, Blocks<Real> to) const {
    for (int64_t p = 0; p < panels<Real>(in.H); ++p) {
      const int64_t j = p * W<Real>;
      store<Real>(to.panel(0, p), in.projected(t, b, j, width<Real>(in.H, p)) + load<Real>(mem.bias + j));
    }
  }

  void enter_resets(int64_t t) const {
    if (!in.resets) return;
    for (int64_t r = 0; r < rows; ++r)
      if (in.starts_anew(t, b0 + r))
        block_operand<Real, Cell>(in, in.entering(t, b0 + r), b0 + r, mem.operand.from(r));
  }

  // Step t; `at`: its place among the projected steps, or -1.
  void step(int64_t t, int64_t at) const {
    Term<Real> terms[2] = {{mem.x, mem.w_ih}, {mem.operand, mem.w_hh}};
    Start<Real> start = bias();
    if (at >= 0) start = {mem.projected.row(at * rows), W<Real>, mem.projected.stride};
    else
      for (int64_t r = 0; r < rows; ++r) {
        in.block_inputs(t, b0 + r, mem.x.from(r));
        if (t + 1 < in.T) prefetch_row(in.xs + ((t + 1) * in.B + b0 + r) * in.I, in.I);
      }
    const bool more = t + 1 < in.T;
    auto ahead = [&](int64_t r, int64_t p) -> Ahead<Real> {
      if (!more) return {};
      const int64_t row = ((t + 1) * in.B + b0 + r) * in.H + p * W<Real>;
      return {hs + row, Cell::LEAKY ? kept + row : nullptr, in.H};
    };
    for_tiles<Real>(rows, start, terms + (at >= 0), at >= 0 ? 1 : 2, t, ahead,
                    [&](const Part<Real>& part) { finish(t, part); });
  }

  // The step of the cell for one tile of a_t.
  INLINE void finish(int64_t t, const Part<Real>& part) const {
    Cell::gates(part.sums, part.count());
    for (int r = 0; r < part.rows; ++r) {
      const int64_t b = b0 + part.r0 + r, row = (t * in.B + b) * in.H, length = in.length(b);
      const Real* e = Cell::LEAKY ? in.entering(t, b).state : nullptr;
      for (int v = 0; v < part.nv; ++v) {
        const int64_t p = part.p0 + v, j = p * W<Real>;
        const int n = width<Real>(in.H, p);
        Vector<Real> state{}, h{};
        if (Cell::LEAKY) state = load<Real>(e + j, n);
        if (t < length) {
          Vector<Real> alpha{};
          if (Cell::LEAKY) alpha = load<Real>(in.alpha.row(b) + j, n);
          state = Cell::step(part.at(r, v), state, alpha);
          h = Cell::output(state);
        }
        store<Real>(hs + row + j, h, n);
        if (Cell::LEAKY) store<Real>(kept + row + j, state, n);
        if (last && t + 1 == RIGHT_OR_FAULT(length, 7, in.T)) store<Real>(last.row(b) + j, state, n);
        if (in.mask) h *= load<Real>(in.mask.row(b) + j, n);
        store<Real>(mem.next.panel(part.r0 + r, p), h);
      }
    }
  }

  // A step that is padding for all rows.
  void pad(int64_t t) const {
    for (int64_t b = b0; b < b0 + rows; ++b) {
      const int64_t row = (t * in.B + b) * in.H;
      memset(hs + row, 0, in.H * sizeof(Real));
      if (Cell::LEAKY) memcpy(kept + row, in.before(t, b), in.H * sizeof(Real));
    }
  }
};

// --- the phases -----------------------------------------------------------------------------------

INLINE int32_t tasks_of_packing(const JrnnSizes& s) {
  constexpr int64_t WORTH_A_TASK = 1 << 16;
  const int64_t n = (s.I * (s.input == JRNN_VECTORS) + s.H) * s.H / WORTH_A_TASK;
  return int32_t(smaller(slices_of(s), larger<int64_t>(1, n)));
}

inline int32_t forward_tasks(const JrnnSizes* s, int32_t phase) {
  if (phase == JRNN_PREPARE) return tasks_of_packing(*s);
  return phase == JRNN_SLICES ? int32_t(slices_of(*s)) : 0;
}

template <class Real>
void forward_prepare(const JrnnForward& call, int32_t task) {
  const JrnnSizes& s = call.sizes;
  const auto mem = scratch_of<ForwardScratch<Real>>(s, call.scratch, 0);
  const Given<Real> in(s, call.in, call.hs, call.kept, mem.zeros);
  const int32_t n = tasks_of_packing(s);
  if (s.input == JRNN_VECTORS) pack(in.w_ih, s.H, 1, mem.w_ih, task, n);
  pack(in.w_hh, s.H, 1, mem.w_hh, task, n);
  if (task) return;
  pad_bias(in, mem.bias);
  memset(mem.zeros, 0, s.H * sizeof(Real));
}

template <class Real>
void forward_slice(const JrnnForward& call, int32_t slice) {
  const JrnnSizes& s = call.sizes;
  const auto mem = scratch_of<ForwardScratch<Real>>(s, call.scratch, slice);
  const Given<Real> in(s, call.in, call.hs, call.kept, mem.zeros);
  with_cell<Real>(s, [&](auto cell) {
    for_groups(s, slice, [&](int64_t b0, int64_t rows) {
      ForwardGroup<Real, decltype(cell)>{in, mem, b0, rows, (Real*)call.hs, (Real*)call.kept,
                                         {(Real*)call.last[0], s.H}}.run(s);
    });
  });
}

template <class Real>
void forward_run(const JrnnForward* call, int32_t phase, int32_t task) {
  if (phase == JRNN_PREPARE) forward_prepare<Real>(*call, task);
  if (phase == JRNN_SLICES) forward_slice<Real>(*call, task);
}

}  // namespace
