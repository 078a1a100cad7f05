// The backward pass: (9)-(13) with (16), (17), (25), (27), (28) and (29).
//
//     delta_t = the cell's adjoint of c_t and dhs_t, clipped              0 in the padding
//     d_t     = the cell's `back` of m * (delta_t w_hh^T), and what goes beside the matmul
//     c_{t-1} = d_t; after a reset 0, and d_t goes to dh_r
//
// for each block of delta_t. An LSTM's c_{t-1} and d_t have two parts, of h and of c: to h goes what
// comes from the matmul, to c what goes beside it.
//
// A tile of delta_{t+1} w_hh^T becomes d_{t+1}, c_t and delta_t while it is in the first cache. The
// deltas of a chunk of steps, GROUP rows, make their part of the weight gradients while they are
// in the cache.
#pragma once

#include "backward_call.h"

namespace {

// dx_t = delta_t w_ih^T (13), or delta_t itself, of some steps of some sequences.
template <class Stored>
void add_dx(const BackwardCall<Stored>& call, const BackwardScratch<Stored>& mem, int64_t b0, int64_t rows, int64_t t0,
            int64_t t1, Blocks<Stored> deltas) {
  using Real = RealOf<Stored>;
  const Given<Stored>& in = call.in;
  if (in.input == JRNN_ADDED) {
    int64_t n = 0;
    for (int64_t t = t0; t < t1; ++t)
      for (int64_t b = b0; b < b0 + rows; ++b, ++n)
        for (int g = 0; g < in.blocks.each; ++g)
          for (int64_t p = 0; p < panels<Real>(in.H); ++p) {
            const Vector<Real> delta = load<Real>(deltas.from_panel(g * panels<Stored>(in.H)).vector(n, p));
            Real* to = call.dx_row(t, b) + in.blocks.place(g) * in.H + p * W<Real>;
            store<Real>(to, delta, width<Real>(in.H, p));
          }
    return;
  }
  const Term<Stored> term = {deltas, mem.w_ih_t};
  for_tiles<Stored>((t1 - t0) * rows, Start<Real>{mem.zeros, 0, 0}, &term, 1, 0, no_prefetch,
                    [&](const Part<Real>& part) {
    for (int i = 0; i < part.rows; ++i) {
      const int64_t n = part.r0 + i;
      Real* to = call.dx_row(t0 + n / rows, b0 + n % rows);
      for (int v = 0; v < part.nv; ++v) {
        const int64_t p = part.p0 + v;
        store<Real>(to + p * W<Real>, part.at(i, v), width<Real>(in.I, p));
      }
    }
  });
}

// Row r of a group, sequence b of the batch, and the units of panel p.
template <class Real>
struct PlaceOf {
  int64_t r, b, p, j;  // j: the first unit
  int columns;

  INLINE void to_panel(int64_t panel, int64_t H) {
    p = panel, j = panel * W<Real>, columns = width<Real>(H, panel);
  }
  template <class Number>
  INLINE Vector<Real> load(const Number* row) const {
    return ::load<Real>(row + j, columns);
  }
  INLINE Vector<Real> load(Rows<const Real> x) const { return load(x.row(b)); }
  INLINE void store(Rows<Real> to, Vector<Real> x) const { ::store<Real>(to.row(b) + j, x, columns); }
  INLINE void add(Rows<Real> to, Vector<Real> x) const { store(to, load(to.row(b)) + x); }
};

// Some rows of the batch, from the last step to the first.
template <class Stored, class Cell>
struct BackwardGroup {
  using Real = RealOf<Stored>;
  using V = Vector<Real>;
  using Place = PlaceOf<Real>;
  using Of = typename Cell::Of;
  // Whether the output is computed again, because it is a function of a state that is not rounded.
  static constexpr bool UNROUNDED =
      RIGHT_OR_FAULT(is_rounded<Stored>, 35, false) && Cell::READS && Cell::STATES == 1;
  struct Arriving {  // c_t, or d_t, of each state
    V of[Cell::STATES];
  };
  Cell cell;
  const BackwardCall<Stored>& call;
  const Given<Stored>& in;
  const BackwardScratch<Stored>& mem;
  WeightSums<Real> sums;
  Span span;
  int64_t b0, rows, steps;
  int64_t late_row;  // of the deltas of this group, if they are kept; or -1

  void run() const {
    begin();
    const int64_t several = steps_of_chunk(call.sizes);
    for (int64_t t1 = smaller(span.t1, steps); t1 > span.t0; t1 -= several) chunk(larger(span.t0, t1 - several), t1);
    if (wants_start()) step(-1, 0, mem.rows_of_deltas);
  }
  void begin() const {
    if (span.t1 == in.T) clear(call.d_reset[0]), clear(call.d_reset[1]), clear(call.d_mask), clear(call.d_alpha);
    for (int64_t t = larger(span.t0, steps); t < span.t1 && call.dx; ++t) clear_dx(t);
  }
  // Whether something is wanted of the state before the first step.
  bool wants_start() const {
    return !span.t0 && (call.d_start[0] || call.d_start[1] || call.d_reset[0] || call.d_reset[1] || call.d_mask);
  }

  void chunk(int64_t t0, int64_t t1) const {
    const bool late = late_row >= 0, weights = !late && (sums.hh || sums.ih || sums.b);
    const int64_t first = late ? late_row + (t0 - span.t0) * rows : 0;
    if (pulls()) {
      block_chunk(in, b0, rows, t0, t1, mem.inputs);
      compute_pull(t0, t1);
    }
    for (int64_t t = t1 - 1; t >= t0; --t) {
      const int64_t n = (t - t0) * rows, at = first + n;
      const bool from_chunk_after = RIGHT_OR_FAULT(t + 1 == t1, 11, false);
      step(t, at, from_chunk_after ? mem.rows_of_deltas : at + rows, n);
    }
    const Blocks<Stored> deltas = mem.deltas.from(first);
    if (weights) {
      if constexpr (HAS_TILES) block_columns(in, b0, rows, t0, t1, mem.inputs);
      else if (!pulls()) block_chunk(in, b0, rows, t0, t1, mem.inputs);
      add_weight_gradients(in, b0, rows, t0, t1, mem.inputs, deltas, 0, panels<Real>(in.H), sums);
    }
    if (call.dx) add_dx(call, mem, b0, rows, t0, t1, deltas);
    keep_for_step_before(deltas);
  }
  void keep_for_step_before(Blocks<Stored> deltas) const {
    for (int64_t p = 0; p < panels<Stored>(in.H) * Of::all; ++p)
      memcpy(mem.deltas.panel(mem.rows_of_deltas, p), deltas.panel(0, p), rows * ROW<Stored> * sizeof(Stored));
  }

  // c_t from delta_{t+1}, at row `next` of the deltas; then delta_t, to row `at`. Row `n` of `pull`
  // is that of step t. Step -1 has no delta: c is the cotangent of the first state.
  void step(int64_t t, int64_t at, int64_t next, int64_t n = 0) const {
    const Term<Stored> term = {deltas_of_h(next), mem.w_hh_t[0]};
    ArrayAhead read[2 + Cell::GATES];
    const int count = read_before(t, read);
    auto ahead = [&](int64_t r, int64_t p) { return ahead_of(t, r, p, read, count); };
    for_tiles<Stored>(rows, Start<Real>{mem.zeros, 0, 0}, &term, t + 1 < steps ? 1 : 0, t + 1, ahead,
                      [&](const Part<Real>& part) { finish(t, at, n, part); });
  }
  // The same of a side of one row, as pair.h asks for it.
  OWN_COPY bool step_of_side(int64_t t, int side, const Wait& wait) const {
    const int64_t at = late_row + t - span.t0, next = t + 1 == span.t1 ? mem.rows_of_deltas : at + 1;
    const int64_t p0 = panel_of_side<Real>(call.sizes, 2, side);
    const int64_t terms = in.blocks.each == 1 ? in.H : panels<Stored>(in.H) * W<Stored>;
    const RowOfSide<Stored> row = {{deltas_of_h(next), mem.w_hh_t[side]},
                                   t + 1 < steps ? in.blocks.each : 0,
                                   terms_of<Stored>(terms),
                                   terms_of_first_side<Stored>(call.sizes)};
    ArrayAhead read[2 + Cell::GATES];
    const int count = read_before(t, read);
    auto start = [&](int64_t) -> Start<Real> { return {mem.zeros, 0, 0}; };
    auto ahead = [&](int64_t p) { return ahead_of(t, 0, p0 + p, read, count); };
    return for_tiles_of_side<Stored, Alone>(row, side, (t + 1) & 1, wait, start, ahead, [&](Part<Real> part) {
      part.p0 += p0;
      finish(t, at, 0, part);
    });
  }
  Blocks<Stored> deltas_of_h(int64_t row) const {
    return mem.deltas.from(row).from_panel(in.blocks.first_of_h() * panels<Stored>(in.H));
  }
  // What step t - 1 reads, which with gates reads the state before it.
  int read_before(int64_t t, ArrayAhead* read) const {
    int count = 0;
    if (!Cell::GATES) read[count++] = ArrayAhead::of(in.hs);
    else if (t > 1) read[count++] = ArrayAhead::of(in.states - in.B * in.H);
    if (call.dhs) read[count++] = ArrayAhead::of(call.dhs);
    for (int g = 0; g < Cell::GATES; ++g) read[count++] = ArrayAhead::of(in.gates[g]);
    return count;
  }
  Ahead ahead_of(int64_t t, int64_t r, int64_t p, const ArrayAhead* read, int count) const {
    if (HAS_TILES || t < 1) return {};
    return {read, count, ((t - 1) * in.B + b0 + r) * in.H + p * W<Real>, in.H};
  }

  INLINE void finish(int64_t t, int64_t at, int64_t n, const Part<Real>& part) const {
    const bool plain = !in.lengths && !in.resets && !in.mask && !call.d_mask && !call.clips && t >= 0 &&
                       t + 1 < in.T && (part.p0 + part.nv) * W<Real> <= in.H;
    if (plain) finish_units<true>(t, at, n, part);
    else finish_units<false>(t, at, n, part);
  }
  // PLAIN: whole panels of units, and no option that a step must ask for.
  template <bool PLAIN>
  OWN_COPY void finish_units(int64_t t, int64_t at, int64_t n, const Part<Real>& part) const {
    for (int i = 0; i < part.rows; ++i) {
      Place place{part.r0 + i, b0 + part.r0 + i, 0, 0, W<Real>};
      const int64_t b = place.b, length = PLAIN ? in.T : in.length(b);
      const bool later = PLAIN || t + 1 < length, anew = !PLAIN && later && in.starts_anew(t + 1, b);
      const Entering<Stored> e = later ? in.entering(t + 1, b) : Entering<Stored>{};
      const Real* before = Cell::GATES && t >= 0 && t < length ? in.entering(t, b).state : nullptr;
      for (int v = 0; v < part.nv; ++v) {
        place.to_panel(part.p0 + v, in.H);
        if (PLAIN) place.columns = W<Real>;
        Arriving c;
        if (later) c = arriving<PLAIN>(part.at(i, v), e, anew, place);
        else
          for (int s = 0; s < Cell::STATES; ++s) c.of[s] = place.load(call.d_last[s]);
        if (PLAIN || t >= 0) leave<PLAIN>(c, t, t < length, before, place, at, n);
        else
          for (int s = 0; s < Cell::STATES; ++s)
            if (call.d_start[s]) place.store(call.d_start[s], RIGHT_OR_FAULT(c.of[s], 12, V{}));
      }
    }
  }

  // c_t (16) from delta_{t+1} w_hh^T, and the sums (17) of step t + 1.
  template <bool PLAIN>
  INLINE Arriving arriving(V product, const Entering<Stored>& e, bool anew, const Place& at) const {
    V h_e{}, beside{};
    if (Cell::READS_H || (!PLAIN && call.d_mask))
      h_e = UNROUNDED ? cell.output(at.load(e.state)) : output_of(in, e, at.j, at.columns);
    if (!PLAIN && call.d_mask) at.add(call.d_mask, product * h_e);
    if (!PLAIN && RIGHT_OR_FAULT(bool(in.mask), 13, false)) product *= at.load(in.mask);
    if (Cell::READS) beside = load<Real>(mem.beside.panel(at.r, at.p));
    Arriving d{{cell.back(product, h_e)}};
    if (Cell::READS) d.of[RIGHT_OR_FAULT(Cell::STATES - 1, 27, 0)] += beside;
    if (PLAIN || RIGHT_OR_FAULT(!anew, 14, true)) return d;
    for (int s = 0; s < Cell::STATES; ++s)
      if (call.d_reset[s]) at.add(call.d_reset[s], d.of[s]);
    return Arriving{};
  }

  // delta_t from c_t, to the rows of the deltas that begin at `first`.
  template <bool PLAIN>
  INLINE void leave(const Arriving& c, int64_t t, bool inside, const Real* before, const Place& at, int64_t first,
                    int64_t n) const {
    const int64_t row = (t * in.B + at.b) * in.H;
    Cotangents<Real, Of::all> found{};
    if (PLAIN || inside) {
      if (PLAIN && HAS_TILES && t > 1) prefetch(row + at.j - in.B * in.H);
      Stepped<Real> s{};
      s.dh = RIGHT_OR_FAULT(c.of[0], 18, t + 1 == in.T ? c.of[0] : V{}), s.dc = c.of[Cell::STATES - 1];
      if (call.dhs) s.d_output = at.load(call.dhs + row);
      if (Cell::LEAKS) s.alpha = at.load(in.alpha);
      for (int g = 0; g < Cell::GATES; ++g) s.gates[g] = at.load(in.gates[g] + row);
      if (Cell::GATES) s.before = at.load(before);
      else s.h = UNROUNDED ? cell.output(at.load(in.states + row)) : at.load(in.hs + row);
      if (Cell::STATES > 1) s.after = at.load(in.states + row);
      found = cell.adjoint(s);
      if (!PLAIN && call.clips)
        for (int g = 0; g < RIGHT_OR_FAULT(Of::all, 30, 1); ++g) found.delta[g] = clipped(found.delta[g]);
      if (pulls()) found.pull = load<Real>(mem.pull.panel(n + at.r, at.p));
      if (Cell::LEAKS && call.d_alpha) at.add(call.d_alpha, found.pull * found.d);
    }
    for (int g = 0; g < Of::all; ++g) {
      V delta = found.delta[g];
      if (NUMBERS<Stored> > 1 && at.columns < W<Real>) delta = first_of<Real>(delta, at.columns);
      store<Real>(mem.deltas.from_panel(g * panels<Stored>(in.H)).vector(first + at.r, at.p), delta);
    }
    if (Cell::READS) store<Real>(mem.beside.panel(at.r, at.p), found.beside);
  }
  // What step t - 1 reads. With this and the forward's, gradients by tiles take 0.88 to 0.96 of the time (Intel Xeon,
  // family 6, model 167, November 2026); without tiles `step` spreads it over the terms of a product.
  INLINE void prefetch(int64_t at) const {
    if (call.dhs) __builtin_prefetch(call.dhs + at);
    if (Cell::GATES) __builtin_prefetch(in.states + at - in.B * in.H);
    else __builtin_prefetch(in.hs + at);
    for (int g = 0; g < Cell::GATES; ++g) __builtin_prefetch(in.gates[g] + at);
  }
  bool pulls() const { return Cell::READS_H && call.d_alpha; }
  INLINE V clipped(V delta) const {  // NaN stays
    const V high = broadcast(call.clip), low = RIGHT_OR_FAULT(-high, 15, broadcast(Real(-__builtin_inf())));
    delta = delta > high ? high : delta;
    return delta < low ? low : delta;
  }

  // a_t - e_{t-1}, which d_alpha multiplies: a_t is computed again. (v_t - e) / alpha would be
  // wrong by 1 / alpha roundings.
  void compute_pull(int64_t t0, int64_t t1) const {
    const Term<Stored> products[2] = {{mem.inputs.x, mem.w_ih}, {mem.inputs.states, mem.w_hh}};
    const bool vectors = in.input == JRNN_VECTORS;
    for_tiles<Stored>((t1 - t0) * rows, Start<Real>{mem.bias, 0, W<Real>}, products + !vectors, vectors ? 2 : 1, 0,
                      no_prefetch, [&](const Part<Real>& part) {
      for (int i = 0; i < part.rows; ++i) {
        const int64_t n = part.r0 + i, t = t0 + n / rows, b = b0 + n % rows;
        const Real* e = in.entering(t, b).state;
        for (int v = 0; v < part.nv; ++v) {
          const int64_t p = part.p0 + v, j = p * W<Real>;
          const int columns = width<Real>(in.H, p);
          V a = part.at(i, v);
          if (!vectors) a += in.projected(t, b, 0, j, columns);
          store<Real>(mem.pull.panel(n, p), RIGHT_OR_FAULT(a - load<Real>(e + j, columns), 17, a));
        }
      }
    });
  }

  void clear(Rows<Real> sum) const {
    if (sum) memset(sum.row(b0), 0, rows * in.H * sizeof(Real));
  }
  void clear_dx(int64_t t) const { memset(call.dx_row(t, b0), 0, rows * call.dx_columns() * sizeof(Real)); }
};

// --- the phases -----------------------------------------------------------------------------------

template <class Stored>
void backward_prepare(const JrnnBackward& c, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnSizes& s = c.sizes;
  const auto mem = scratch_of<BackwardScratch<Stored>>(s, c.scratch, 0);
  const Given<Stored> in(s, c.in, c.hs, c.kept, mem.zeros);
  const int32_t n = tasks_of_packing(s);
  const int each = in.blocks.each, first = in.blocks.first_of_h();
  const int sides = sides_of_gradient(s);
  for (int i = 0; i < sides; ++i) {
    auto transposed_w_hh = [&](int g) {
      const auto w = RIGHT_OR_FAULT(in.transposed_w_hh(first + g), 16, in.block_of_w_hh(first + g));
      return w.from_panel(panel_of_side<Real>(s, sides, i));
    };
    pack_below<Stored>(transposed_w_hh, each, s.H, mem.w_hh_t[i], task, n);
  }
  if (mem.wants_dx(s)) pack_below<Stored>([&](int g) { return in.transposed_w_ih(g); }, each, s.H, mem.w_ih_t, task, n);
  if (pulls(s)) pack_weights(in, mem.w_ih, mem.w_hh, 0, task, n);
  if (task) return;
  pad_bias(in, mem.bias);
  memset(mem.zeros, 0, larger<int64_t>(s.H, W<Real>) * sizeof(Real));
  if (mem.pair) Pair(mem.pair).begin();
}

// f(first row, rows, the row of their deltas if they are kept) for each group of a slice.
template <class F>
INLINE void for_groups_of_deltas(const JrnnSizes& s, Span span, int64_t slice, F f) {
  int64_t at = span.n % 2 * rows_of_span(s);
  for_groups(s, slice, [&](int64_t b0, int64_t rows) {
    f(b0, rows, is_late(s) ? at : -1);
    at += (span.t1 - span.t0) * rows;
  });
}

// The phases of one sequence in two sides, but for the weight gradients.
template <class Group>
void backward_sides(const Group& group, bool is_rest, int32_t task) {
  const JrnnSizes& s = group.call.sizes;
  const Span span = group.span;
  const int64_t end = smaller(span.t1, group.steps), count = larger<int64_t>(0, end - span.t0);
  // The second thread would sum weight gradients, a third or half of the work of a step.
  const Pair pair(group.mem.pair, s.H * s.H * group.in.blocks.each, 6);
  auto step_of_side = [&](int64_t n, int side, const Wait& wait) {
    return group.step_of_side(end - 1 - n, side, wait);
  };
  const Step step(step_of_side);
  if (!is_rest) {
    if (task) return go_second(pair, count, step);
    group.mem.clear_rests(s), group.begin();
    return go_first(pair, count, step);
  }
  go_on_alone(pair, count, step);
  for (int side = 0; side < 2 && group.wants_start(); ++side) group.step_of_side(-1, side, Wait{});
  if (RIGHT_OR_FAULT(count, 54, 0)) group.keep_for_step_before(group.mem.deltas.from(group.late_row));
  pair.begin_span();
}

template <class Stored>
void backward_slice(const JrnnBackward& c, Span span, bool is_rest, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnSizes& s = c.sizes;
  const bool two_sides = sides_of_gradient(s) > 1;
  const int32_t slice = two_sides ? 0 : task;
  const auto mem = scratch_of<BackwardScratch<Stored>>(s, c.scratch, slice);
  const BackwardCall<Stored> call(c, mem.zeros);
  WeightSums<Real> sums{};
  if (!is_late(s)) sums = call.wanted(mem.sums);
  sums.clear(s, 0, panels<Real>(s.H));
  if (!two_sides) mem.clear_rests(s);
  with_cell<Real>(s, [&](auto cell) {
    for_groups_of_deltas(s, span, slice, [&](int64_t b0, int64_t rows, int64_t late_row) {
      const int64_t steps = call.in.longest(b0, rows);
      const BackwardGroup<Stored, decltype(cell)> group{cell, call,  call.in, mem,   sums,
                                                        span, b0,    rows,    steps, late_row};
      if (two_sides) backward_sides(group, is_rest, task);
      else group.run();
    });
  });
}

// The weight gradients of the kept deltas of a span, of the panels [p0, p1) of each block.
template <class Stored>
void late_weight_gradients(const BackwardCall<Stored>& call, void* scratch, const ChunkInputs<Stored>& inputs,
                           const WeightSums<RealOf<Stored>>& sums, Span span, int64_t p0, int64_t p1) {
  using Real = RealOf<Stored>;
  const JrnnSizes& s = call.sizes;
  const int64_t several = steps_of_chunk(s), j = p0 * W<Real>;
  const bool ids = call.dw_ih && s.input == JRNN_IDS;
  const bool first = RIGHT_OR_FAULT(span.t1 == s.T, 31, true);
  if (first) sums.clear(s, p0, p1);
  const int each = call.in.blocks.each;
  auto row_of = [&](int g, int64_t id) { return call.dw_ih + (id * each + call.in.blocks.place(g)) * s.H; };
  for (int64_t i = 0; i < s.I && ids && first; ++i)
    for (int g = 0; g < each; ++g)
      memset(row_of(g, i) + j, 0, (smaller<int64_t>(s.H, p1 * W<Real>) - j) * sizeof(Real));
  for (int64_t slice = 0; slice < slices_of(s); ++slice) {
    const Blocks<Stored> all = scratch_of<BackwardScratch<Stored>>(s, scratch, slice).deltas;
    for_groups_of_deltas(s, span, slice, [&](int64_t b0, int64_t rows, int64_t late_row) {
      const int64_t end = smaller(span.t1, call.in.longest(b0, rows));
      for (int64_t t0 = span.t0; t0 < end; t0 += several) {
        const int64_t t1 = smaller(end, t0 + several);
        const Blocks<Stored> deltas = all.from(late_row + (t0 - span.t0) * rows);
        if constexpr (HAS_TILES) block_columns(call.in, b0, rows, t0, t1, inputs);
        else block_chunk(call.in, b0, rows, t0, t1, inputs);
        add_weight_gradients(call.in, b0, rows, t0, t1, inputs, deltas, p0, p1, sums);
        if (ids)
          add_rows_of_ids(call.in, b0, rows, t0, t1, deltas, p0, p1,
                          [&](int g, int64_t p, int64_t id) { return row_of(g, id) + p * W<Real>; });
      }
    });
  }
}

// dx of part i of n of the steps of a span of one sequence.
template <class Stored>
void add_dx_of_sides(const BackwardCall<Stored>& call, const BackwardScratch<Stored>& mem, Span span, int64_t i,
                     int64_t n) {
  const int64_t several = steps_of_chunk(call.sizes);
  for_groups_of_deltas(call.sizes, span, 0, [&](int64_t b0, int64_t rows, int64_t late_row) {
    const int64_t count = larger<int64_t>(0, smaller(span.t1, call.in.longest(b0, rows)) - span.t0);
    const int64_t end = span.t0 + count * (i + 1) / n, first_row = RIGHT_OR_FAULT(late_row, 55, 0);
    for (int64_t t0 = span.t0 + count * i / n, t1; t0 < end; t0 = t1) {
      t1 = smaller(end, t0 + several);
      add_dx(call, mem, b0, rows, t0, t1, mem.deltas.from(first_row + t0 - span.t0));
    }
  });
}

// The weight gradients of some panels of each block; after the last span summed over the slices.
template <class Stored>
void backward_weights(const JrnnBackward& c, Span span, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnSizes& s = c.sizes;
  const auto mem = scratch_of<BackwardScratch<Stored>>(s, c.scratch, 0);
  const BackwardCall<Stored> call(c, mem.zeros);
  const int64_t count = panels<Real>(s.H), tasks = tasks_of_weights(s);
  const int64_t p0 = count * task / tasks, p1 = count * (task + 1) / tasks;
  const WeightSums<Real> sums = call.wanted(mem.sums);
  if (is_late(s)) late_weight_gradients(call, c.scratch, mem.late_inputs_of(task), sums, span, p0, p1);
  if (call.dx && sides_of_gradient(s) > 1) add_dx_of_sides(call, mem, span, task, tasks);
  if (span.t0) return;
  const int64_t n = is_late(s) ? 1 : slices_of(s);
  // Found once: for each vector it took 0.07 of a pass of an LSTM (T = 64, B = 32, H = 256, Intel Xeon).
  const int64_t next = n > 1 ? scratch_of<BackwardScratch<Stored>>(s, c.scratch, 1).sums.hh - mem.sums.hh : 0;
  const CellBlocks blocks = call.in.blocks;
  auto as_is = [](int g) { return g; };
  auto place = [&](int g) { return blocks.place(g); };
  if (sums.hh) sum_slices<Real>(s.H, s.H, blocks.each, n, p0, p1, sums.hh, next, as_is, call.dw_hh);
  if (sums.ih) sum_slices<Real>(s.I, s.H, blocks.each, n, p0, p1, sums.ih, next, place, call.dw_ih);
  if (sums.b) sum_slices<Real>(1, s.H, blocks.all, n, p0, p1, sums.b, next, place, call.db);
}

template <class Stored>
void backward_run(const JrnnBackward* call, int32_t phase, int32_t task) {
  if (!phase) return backward_prepare<Stored>(*call, task);
  const JrnnSizes& s = call->sizes;
  const BackwardPhase at = backward_phase(s, phase);
  const int32_t of_steps = at.span < spans_of(s) ? tasks_of_steps(s) : 0;
  if (task < of_steps) backward_slice<Stored>(*call, span_of(s, at.span), at.is_rest, task);
  else backward_weights<Stored>(*call, span_of(s, at.span - 1), task - of_steps);
}

}  // namespace
