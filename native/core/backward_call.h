// The arguments of a backward call, and the memory that it works in.
//
// One sequence, or a few, keep the other cores idle; and a large table of ids can't be summed once
// for each slice. These keep their deltas, and tasks of their own make the weight gradients of them,
// cut by columns (`is_late`). Few sequences go through time in spans: while one core is in a span,
// others make the weight gradients of the span before it; the deltas of two spans are kept. The gradient at
// T, B, I, H = 1024, 1, 32, 128 takes 0.86 of the time of one phase after another, of an LSTM 0.87, of a GRU
// 0.81 (two cores, Intel Xeon, family 6, model 167, November 2026). Of one sequence in two sides two cores are in a
// span, and then both make the weight gradients.
#pragma once

#include "weights.h"

namespace {

INLINE int64_t steps_of_chunk(const JrnnSizes& s) {
  return smaller(s.T, larger<int64_t>(1, GROUP / rows_of_group(s)));
}
INLINE bool is_few(const JrnnSizes& s) { return slices_of(s) == 1 && s.B <= 4; }
INLINE bool is_late(const JrnnSizes& s) {
  return is_few(s) || (s.input == JRNN_IDS && s.I * slices_of(s) > s.T * s.B);
}

// Whether a_t is computed again, for d_alpha.
INLINE bool pulls(const JrnnSizes& s) { return (s.wanted & JRNN_WANT_DALPHA) && s.cell == JRNN_LEAKY_INPUT; }
INLINE int sides_of_gradient(const JrnnSizes& s) { return pulls(s) ? 1 : sides_of(s); }

// The steps [t0, t1): number n, counted from the end.
struct Span {
  int64_t n, t0, t1;
};
INLINE int64_t spans_of(const JrnnSizes& s) {
  if (!is_few(s)) return 1;
  return smaller<int64_t>(8, (s.T + steps_of_chunk(s) - 1) / steps_of_chunk(s));
}
INLINE Span span_of(const JrnnSizes& s, int64_t n) {
  const int64_t all = spans_of(s);
  return {n, s.T * (all - 1 - n) / all, s.T * (all - n) / all};
}

// The rows of a slice in a span, at most.
INLINE int64_t rows_of_span(const JrnnSizes& s) {
  return (s.T + spans_of(s) - 1) / spans_of(s) * ((s.B + slices_of(s) - 1) / slices_of(s));
}

// H / 64 tasks: every one reads all states and inputs, into panels.
inline int32_t tasks_of_weights(const JrnnSizes& s) {
  if (!is_late(s)) return tasks_of_packing(s);
  return int32_t(smaller<int64_t>(16, larger<int64_t>(sides_of_gradient(s), s.H / 64)));
}
// Phase 0 packs the weights. Phase n + 1 has the slices of span n, and the weight gradients of span n - 1. In its
// place two sides have two phases: both of them and the weight gradients, and what the sides have left.
INLINE int32_t tasks_of_steps(const JrnnSizes& s) {
  return int32_t(sides_of_gradient(s) > 1 ? 2 : slices_of(s));
}
struct BackwardPhase {
  int64_t span;
  bool is_rest;
};
INLINE BackwardPhase backward_phase(const JrnnSizes& s, int32_t phase) {
  if (sides_of_gradient(s) > 1) return {(phase - 1) / 2, phase % 2 == 0};
  return {phase - 1, false};
}
inline int32_t backward_tasks(const JrnnSizes* s, int32_t phase) {
  if (!phase) return tasks_of_packing(*s);
  const BackwardPhase at = backward_phase(*s, phase);
  const int64_t spans = spans_of(*s);
  if (at.span > spans || (at.span == spans && at.is_rest)) return -1;
  if (at.is_rest) return 1;
  return (at.span < spans ? tasks_of_steps(*s) : 0) + (at.span ? tasks_of_weights(*s) : 0);
}

template <class Stored>
struct BackwardScratch {
  using Real = RealOf<Stored>;
  Packed<Stored> w_hh_t[2], w_ih_t;  // for delta_t w_hh^T, of each side, and dx
  Packed<Stored> w_hh, w_ih;         // for a_t, which d_alpha reads
  Real *bias, *zeros;
  int64_t* pair;
  WeightSums<Real> sums;
  Blocks<Stored> deltas;
  Blocks<Real> beside, pull;
  ChunkInputs<Stored> inputs;       // of a chunk
  ChunkInputs<Stored> late_inputs;  // of a chunk, for the first task of a phase
  int64_t late_bytes;             // from a task to the next
  int64_t rows_of_deltas;         // before the rows of the step after a chunk

  static bool wants_dx(const JrnnSizes& s) { return (s.wanted & JRNN_WANT_DX) && s.input == JRNN_VECTORS; }
  // The rows of the transposed weights; those of several blocks are filled to whole panels.
  static int64_t units_of_blocks(const JrnnSizes& s) {
    const int each = blocks_of(s.cell).each;
    return each == 1 ? s.H : each * panels<Stored>(s.H) * W<Stored>;
  }

  void shared(const JrnnSizes& s, Arena& arena) {
    const int64_t rows = rows_of_group(s), chunk = rows * steps_of_chunk(s);
    const int64_t units = units_of_blocks(s);
    const int sides = sides_of_gradient(s);
    for (int i = 0; i < sides; ++i)
      w_hh_t[i] = arena.packed<Stored>(units, units_of_side<Real>(s, sides, i), widest_for(rows));
    if (sides > 1) pair = arena.take<int64_t>(Pair::SIZE);
    if (wants_dx(s)) w_ih_t = arena.packed<Stored>(units, s.I, widest_for(chunk));
    if (pulls(s)) w_hh = arena.packed<Stored>(s.H, s.H, widest_for(chunk));
    if (pulls(s) && s.input == JRNN_VECTORS) w_ih = arena.packed<Stored>(s.I, s.H, widest_for(chunk));
    bias = arena.take<Real>(panels<Real>(s.H) * W<Real> * blocks_of(s.cell).all);
    zeros = arena.take<Real>(larger<int64_t>(s.H, W<Real>));
    if (!is_late(s)) return;
    take_sums(s, arena);
    const size_t before = arena.used;
    late_inputs = take_inputs(s, arena, chunk);
    late_bytes = int64_t(arena.used - before);
    arena.used += late_bytes * (tasks_of_weights(s) - 1);
  }
  void own(const JrnnSizes& s, Arena& arena) {
    const int64_t rows = rows_of_group(s), chunk = rows * steps_of_chunk(s);
    if (!is_late(s)) take_sums(s, arena);
    rows_of_deltas = is_late(s) ? smaller<int64_t>(2, spans_of(s)) * rows_of_span(s) : chunk;
    deltas = arena.blocks<Stored>(rows_of_deltas + rows, panels<Stored>(s.H) * W<Stored> * blocks_of(s.cell).all);
    if (s.cell != JRNN_ELMAN) beside = arena.blocks<Real>(rows, s.H);
    if (pulls(s)) pull = arena.blocks<Real>(chunk, s.H);
    if (!is_late(s) || pulls(s)) inputs = take_inputs(s, arena, chunk);
  }
  ChunkInputs<Stored> late_inputs_of(int32_t task) const {
    ChunkInputs<Stored> found = late_inputs;
    Blocks<Stored>* const all[] = {&found.states, &found.x, &found.states_in_terms, &found.x_in_terms,
                                   &found.deltas_in_terms};
    for (Blocks<Stored>* blocks : all)
      if (blocks->at) blocks->at += task * late_bytes / int64_t(sizeof(Stored));
    return found;
  }
  void clear_rests(const JrnnSizes& s) const {
    for (int g = 0; g < RIGHT_OR_FAULT(blocks_of(s.cell).all, 34, 0); ++g)
      clear_rest(deltas.from_panel(g * panels<Stored>(s.H)), deltas.stride / ROW<Stored>, s.H);
    if (!pulls(s)) return;
    const int64_t rows = rows_of_group(s) * steps_of_chunk(s);
    clear_rest(inputs.states, rows, s.H), clear_rest(inputs.x, rows, s.I);
  }
  static ChunkInputs<Stored> take_inputs(const JrnnSizes& s, Arena& arena, int64_t rows) {
    const bool vectors = s.input == JRNN_VECTORS;
    ChunkInputs<Stored> found{};
    if (!HAS_TILES || pulls(s)) {
      found.states = arena.blocks<Stored>(rows, s.H);
      if (vectors) found.x = arena.blocks<Stored>(rows, s.I);
    }
    if (NUMBERS<Stored> == 1) return found;
    auto in_terms = [&](int64_t columns, int blocks) {
      return arena.blocks<Stored>(filled_terms<Stored>(rows), panels<Real>(columns) * blocks * W<Stored>);
    };
    found.states_in_terms = in_terms(s.H, 1), found.deltas_in_terms = in_terms(s.H, blocks_of(s.cell).all);
    if (vectors) found.x_in_terms = in_terms(s.I, 1);
    return found;
  }
  void take_sums(const JrnnSizes& s, Arena& arena) {
    const int64_t columns = panels<Real>(s.H) * W<Real>;
    const CellBlocks blocks = blocks_of(s.cell);
    sums.hh = arena.take<Real>(s.H * columns * blocks.each);
    const bool table = s.input == JRNN_IDS && !is_late(s);
    if (s.input == JRNN_VECTORS || table) sums.ih = arena.take<Real>(s.I * columns * blocks.each);
    sums.b = arena.take<Real>(columns * blocks.all);
  }
};

// The arguments of the call, typed.
template <class Stored>
struct BackwardCall {
  using Real = RealOf<Stored>;
  const JrnnSizes& sizes;
  Given<Stored> in;
  const OutputOf<Stored>* dhs;
  Rows<const Real> d_last[JRNN_STATES];
  bool clips;
  Real clip;
  Real *dw_ih, *dw_hh, *db, *dx;
  Rows<Real> d_start[JRNN_STATES], d_reset[JRNN_STATES], d_mask, d_alpha;

  BackwardCall(const JrnnBackward& c, const Real* zeros)
      : sizes(c.sizes), in(c.sizes, c.in, c.hs, c.kept, zeros), dhs((const OutputOf<Stored>*)c.dhs),
        clips(c.clip_delta >= 0), clip(Real(c.clip_delta)), dw_ih((Real*)c.dw_ih), dw_hh((Real*)c.dw_hh),
        db((Real*)c.db), dx((Real*)c.dx), d_mask{(Real*)c.d_mask, in.H}, d_alpha{(Real*)c.d_alpha, in.H} {
    for (int i = 0; i < JRNN_STATES; ++i) {
      d_last[i] = in.rows_or(c.d_last[i], zeros);
      d_start[i] = {(Real*)c.d_start[i], in.H}, d_reset[i] = {(Real*)c.d_reset_state[i], in.H};
    }
    for (int g = 0; g < gates_of(c.sizes.cell); ++g) in.gates[g] = (const Real*)c.gates[in.blocks.place(g)];
  }

  int64_t dx_columns() const { return in.input == JRNN_ADDED ? in.blocks.each * in.H : in.I; }
  Real* dx_row(int64_t t, int64_t b) const { return dx + (t * in.B + b) * dx_columns(); }
  WeightSums<Real> wanted(WeightSums<Real> sums) const {
    return {dw_hh ? sums.hh : nullptr, dw_ih ? sums.ih : nullptr, db ? sums.b : nullptr};
  }
};

}  // namespace
