// The forward pass: (1), (2), (15), (23), (24), (26), (28), (29).
//
//     a_t = x_t w_ih + (m * h_e) w_hh + b          h_e = output(e_{t-1})
//
// in one accumulation, and the step of the cell while a tile of a_t is in the first cache.
#pragma once

#include "cells.h"
#include "sides.h"

namespace {

// Fewer rows than this read all of w_ih for little work. Their inputs, and ids, are projected for
// several steps at once: `STEP_ROWS` rows.
constexpr int64_t FEW_ROWS = 6, STEP_ROWS = 16;

// h_e of n units from j on, as the matmul reads it.
template <class Stored>
INLINE Vector<RealOf<Stored>> output_of(const Given<Stored>& in, const Entering<Stored>& e, int64_t j, int n) {
  using Real = RealOf<Stored>;
  if (e.stored) return load<Real>(e.stored + j, n);
  return rounded<Stored>(e.output ? load<Real>(e.output + j, n) : in.output(load<Real>(e.state + j, n)));
}

// m * h_e of panel p of a row.
template <class Stored>
INLINE Vector<RealOf<Stored>> operand_of(const Given<Stored>& in, const Entering<Stored>& e, int64_t b, int64_t p) {
  using Real = RealOf<Stored>;
  const int n = width<Real>(in.H, p);
  const Vector<Real> h = output_of(in, e, p * W<Real>, n);
  return in.mask ? h * rounded<Stored>(load<Real>(in.mask.row(b) + p * W<Real>, n)) : h;
}
// The same of one row, into blocks.
template <class Stored>
void block_operand(const Given<Stored>& in, const Entering<Stored>& e, int64_t b, Blocks<Stored> to) {
  using Real = RealOf<Stored>;
  const int64_t count = panels<Real>(in.H);
  for (int64_t p = 0; p < count; ++p) store<Real>(to.vector(0, p), operand_of(in, e, b, p));
}

// The bias in the order of a tile: the blocks of a panel of units one after the other.
template <class Stored, class Real>
void pad_bias(const Given<Stored>& in, Real* to) {
  const int all = in.blocks.all;
  for (int64_t p = 0; p < panels<Real>(in.H); ++p)
    for (int g = 0; g < all; ++g) {
      Vector<Real> b{};
      if (in.b) b = load<Real>(in.b + in.blocks.place(g) * in.H + p * W<Real>, width<Real>(in.H, p));
      store<Real>(to + (p * all + g) * W<Real>, b);
    }
}

// The units of some panels: their weights, and the inputs as their matmul reads them.
template <class Stored>
struct Side {
  int64_t p0, p1;
  Packed<Stored> w_ih, w_hh;
  Blocks<Stored> x;
};

template <class Stored>
struct ForwardScratch {
  using Real = RealOf<Stored>;
  Side<Stored> sides[2];
  Real *bias, *zeros;
  int64_t* pair;
  Blocks<Stored> operands[2];  // m * h_e of a step, in turn
  Blocks<Real> projected;

  static bool projects(const JrnnSizes& s) { return s.input != JRNN_VECTORS || rows_of_group(s) < FEW_ROWS; }
  static int64_t steps_projected(const JrnnSizes& s) {
    return smaller(s.T, larger<int64_t>(1, STEP_ROWS / rows_of_group(s)));
  }
  void shared(const JrnnSizes& s, Arena& arena) {
    const int64_t rows = rows_of_group(s);
    const CellBlocks blocks = blocks_of(s.cell);
    auto widest = [&](int64_t n) { return widest_for(n, blocks.all); };
    for (int i = 0; i < sides_of(s); ++i) {
      Side<Stored>& side = sides[i];
      side.p0 = panel_of_side<Real>(s, sides_of(s), i), side.p1 = panel_of_side<Real>(s, sides_of(s), i + 1);
      const int64_t units = units_of_side<Real>(s, sides_of(s), i);
      const int widest_of_x = widest(projects(s) ? rows * steps_projected(s) : rows);
      if (s.input == JRNN_VECTORS) side.w_ih = arena.packed<Stored>(s.I, units, widest_of_x, blocks.each);
      side.w_hh = arena.packed<Stored>(s.H, units, widest(rows), blocks.each);
    }
    bias = arena.take<Real>(panels<Real>(s.H) * W<Real> * blocks.all);
    zeros = arena.take<Real>(s.H);
    if (sides_of(s) > 1) pair = arena.take<int64_t>(Pair::SIZE);
  }
  void own(const JrnnSizes& s, Arena& arena) {
    const int64_t rows = rows_of_group(s), several = projects(s) ? rows * steps_projected(s) : 0;
    for (Blocks<Stored>& operand : operands) operand = arena.blocks<Stored>(rows, s.H);
    for (int i = 0; i < sides_of(s) && s.input == JRNN_VECTORS; ++i)
      sides[i].x = arena.blocks<Stored>(larger(rows, several), s.I);
    projected = arena.blocks<Real>(several, panels<Real>(s.H) * W<Real> * blocks_of(s.cell).all);
  }
};

// x_t w_ih + b of a row that needs no matmul.
template <class Stored, class Real>
void look_up(const Given<Stored>& in, const Side<Stored>& side, const Real* bias, int64_t t, int64_t b,
             Blocks<Real> to) {
  for (int64_t p = side.p0; p < side.p1; ++p)
    for (int g = 0; g < in.blocks.all; ++g) {
      const int64_t n = p * in.blocks.all + g;
      const Vector<Real> x = in.projected(t, b, g, p * W<Real>, width<Real>(in.H, p));
      store<Real>(to.panel(0, n), x + load<Real>(bias + n * W<Real>));
    }
}

// The same of the steps [t0, t1) of some sequences, row after row.
template <class Of, class Stored>
void project(const Given<Stored>& in, const ForwardScratch<Stored>& mem, const Side<Stored>& side, int64_t b0,
             int64_t rows, int64_t t0, int64_t t1) {
  using Real = RealOf<Stored>;
  for (int64_t t = t0, n = 0; t < t1; ++t)
    for (int64_t r = 0; r < rows; ++r, ++n)
      if (in.input == JRNN_VECTORS) in.block_inputs(t, b0 + r, side.x.from(n));
      else look_up(in, side, mem.bias, t, b0 + r, mem.projected.from(n));
  if (in.input != JRNN_VECTORS) return;
  const Term<Stored> x = {side.x, side.w_ih};
  const Start<Real> bias = {mem.bias + side.p0 * Of::all * W<Real>, 0, W<Real>};
  for_tiles<Stored, Of>((t1 - t0) * rows, bias, &x, 1, 0, no_prefetch, [&](const Part<Real>& part) {
    for (int r = 0; r < part.rows; ++r)
      for (int v = 0; v < part.nv; ++v)
        store<Real>(mem.projected.panel(part.r0 + r, (side.p0 + part.p0) * Of::all + v), part.at(r, v));
  });
}

// Some rows of the batch, through all steps.
template <class Stored, class Cell>
struct ForwardGroup {
  using Real = RealOf<Stored>;
  Cell cell;
  const Given<Stored>& in;
  ForwardScratch<Stored> mem;
  int64_t b0, rows;
  OutputOf<Stored>* hs;
  Real* kept;
  Real* gates[JRNN_GATES];  // in the order of blocks.h
  Rows<Real> last, last_h;  // of the state, and of an LSTM's h
  using Of = typename Cell::Of;
  static constexpr bool KEEPS = Cell::KEEPS || (Cell::READS && is_rounded<Stored>);

  void run(const JrnnSizes& s) const {
    const int64_t steps = in.longest(b0, rows), several = projected_steps(s);
    enter(several);
    for (int64_t t = 0; t < steps; ++t) {
      if (several && t % several == 0)
        project<Of>(in, mem, mem.sides[0], b0, rows, t, smaller(steps, t + several));
      enter_resets(t);
      step(t, several ? t % several : -1);
    }
    leave(steps);
  }

  static int64_t projected_steps(const JrnnSizes& s) {
    using Scratch = ForwardScratch<Stored>;
    return Scratch::projects(s) ? Scratch::steps_projected(s) : 0;
  }
  // What the first step reads.
  void enter(int64_t several) const {
    for (const Blocks<Stored>& operand : mem.operands) clear_rest(operand, rows, in.H);
    for (const Side<Stored>& side : mem.sides) clear_rest(side.x, larger(rows, rows * several), in.I);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t b = b0 + r;
      if (last && !in.length(b)) memcpy(last.row(b), in.start.row(b), in.H * sizeof(Real));
      if (last_h && !in.length(b)) memcpy(last_h.row(b), in.start_output.row(b), in.H * sizeof(Real));
      block_operand<Stored>(in, {in.start.row(b), in.of(in.start_output, b), nullptr}, b, mem.operands[0].from(r));
    }
  }
  void enter_resets(int64_t t) const {
    if (!in.resets) return;
    for (int64_t r = 0; r < rows; ++r)
      if (in.starts_anew(t, b0 + r))
        block_operand(in, in.entering(t, b0 + r), b0 + r, mem.operands[t & 1].from(r));
  }
  void leave(int64_t steps) const {
    for (int64_t t = steps; t < in.T; ++t) pad(t);
  }

  // Step t; `at`: its place among the projected steps, or -1.
  void step(int64_t t, int64_t at) const {
    const Side<Stored>& side = mem.sides[0];
    const Term<Stored> products[2] = {{side.x, side.w_ih}, {mem.operands[t & 1], side.w_hh, true}};
    Start<Real> start = {mem.bias, 0, W<Real>};
    if (at >= 0) start = {mem.projected.row(at * rows), W<Real>, mem.projected.stride};
    else
      for (int64_t r = 0; r < rows; ++r) {
        in.block_inputs(t, b0 + r, side.x.from(r));
        if (t + 1 < in.T) prefetch_row(in.xs + ((t + 1) * in.B + b0 + r) * in.I, in.I);
      }
    for_tiles<Stored, Of>(rows, start, products + (at >= 0), at >= 0 ? 1 : 2, t, no_prefetch,
                          [&](const Part<Real>& part) { finish(t, part); });
  }

  // Step t of a side of one row, as pair.h asks for it.
  OWN_COPY bool step_of_side(const JrnnSizes& s, int64_t t, int64_t steps, int side, const Wait& wait) const {
    const Side<Stored>& own = mem.sides[side];
    const int64_t several = projected_steps(s), at = t % several;
    if (!at) project<Of>(in, mem, own, b0, 1, t, smaller(steps, t + several));
    enter_resets(t);
    const RowOfSide<Stored> row = {
        {mem.operands[t & 1], own.w_hh, true}, 1, terms_of<Stored>(in.H), terms_of_first_side<Stored>(s)};
    auto start = [&](int64_t p) -> Start<Real> {
      return {mem.projected.panel(at, (own.p0 + p) * Of::all), 0, mem.projected.stride};
    };
    return for_tiles_of_side<Stored, Of>(row, side, t & 1, wait, start, [](int64_t) { return Ahead{}; },
                                         [&](Part<Real> part) {
      part.p0 += own.p0;
      finish(t, part);
    });
  }

  // The step of the cell for one tile of a_t.
  INLINE void finish(int64_t t, const Part<Real>& part) const {
    cell.gates(part.sums, part.count());
    const bool plain = !in.lengths && !in.mask && t + 1 < in.T && (part.p0 + part.panels) * W<Real> <= in.H;
    if (plain) finish_units<true>(t, part);
    else finish_units<false>(t, part);
  }
  // PLAIN: whole panels of units, and no option that a step must ask for.
  template <bool PLAIN>
  OWN_COPY void finish_units(int64_t t, const Part<Real>& part) const {
    for (int r = 0; r < part.rows; ++r) {
      const int64_t b = b0 + part.r0 + r, row = (t * in.B + b) * in.H, length = PLAIN ? in.T : in.length(b);
      const Real* e = Cell::READS ? in.entering(t, b).state : nullptr;
      for (int v = 0; v < part.panels; ++v) {
        const int64_t p = part.p0 + v, j = p * W<Real>;
        const int n = PLAIN ? W<Real> : width<Real>(in.H, p);
        After<Real> after{};
        Vector<Real> found[Of::all]{};
        if (Cell::READS) after.state = load<Real>(e + j, n);
        if (PLAIN || t < length) {
          Vector<Real> alpha{};
          if (Cell::LEAKS) alpha = load<Real>(in.alpha.row(b) + j, n);
          for (int g = 0; g < Of::all; ++g) found[g] = part.at(r, v * Of::all + g);
          after = cell.step(found, after.state, alpha);
        }
        Vector<Real> h = after.h;
        store<Real>(hs + row + j, h, n);
        if (KEEPS) store<Real>(kept + row + j, after.state, n);
        for (int g = 0; g < Cell::GATES && gates[0]; ++g) store<Real>(gates[g] + row + j, found[g], n);
        // What the next step writes. With tiles this is spread over products (`for_tiles`), and a pass takes 0.93 to
        // 0.97 of the time (Intel Xeon, family 6, model 167, November 2026). Without them it goes to the second cache:
        // a pass takes 0.90 at T, B, I, H = 784, 64, 1, 128 and 0.95 at 512, 32, 128, 256 (AMD EPYC, family 25, model
        // 17, November 2026).
        if (PLAIN) __builtin_prefetch(hs + row + j + in.B * in.H, 1, HAS_TILES ? 3 : 2);
        if (!PLAIN && t + 1 == RIGHT_OR_FAULT(length, 7, in.T)) {
          if (last) store<Real>(last.row(b) + j, after.state, n);
          if (Cell::STATES > 1 && last_h) store<Real>(last_h.row(b) + j, h, n);
        }
        // Pairs of terms, and tiles, read units that there are not, where infinite inputs times 0 are NaN.
        if (NUMBERS<Stored> > 1 && n < W<Real>) h = first_of<Real>(h, n);
        if (!PLAIN && in.mask) {
          const Vector<Real> m = load<Real>(in.mask.row(b) + j, n);
          h = rounded<Stored>(h) * RIGHT_OR_FAULT(rounded<Stored>(m), 37, m);
        }
        store<Real>(mem.operands[(t + 1) & 1].vector(part.r0 + r, p), h);
      }
    }
  }

  // A step that is padding for all rows.
  void pad(int64_t t) const {
    for (int64_t b = b0; b < b0 + rows; ++b) {
      const int64_t row = (t * in.B + b) * in.H;
      memset(hs + row, 0, in.H * sizeof(OutputOf<Stored>));
      if (KEEPS) memcpy(kept + row, in.before(t, b), in.H * sizeof(Real));
      for (int g = 0; g < Cell::GATES && gates[0]; ++g) memset(gates[g] + row, 0, in.H * sizeof(Real));
    }
  }
};

// --- the phases -----------------------------------------------------------------------------------

INLINE int32_t tasks_of_packing(const JrnnSizes& s) {
  constexpr int64_t WORTH_A_TASK = 1 << 16;
  const int64_t n = (s.I * (s.input == JRNN_VECTORS) + s.H) * s.H * blocks_of(s.cell).each / WORTH_A_TASK;
  return int32_t(smaller(larger<int64_t>(slices_of(s), sides_of(s)), larger<int64_t>(1, n)));
}

// Phase 0 packs the weights, phase 1 goes through time; of two sides, phase 2 does what they left.
inline int32_t forward_tasks(const JrnnSizes* s, int32_t phase) {
  if (phase == 0) return tasks_of_packing(*s);
  if (phase == 1) return int32_t(larger<int64_t>(slices_of(*s), sides_of(*s)));
  return phase == 2 && sides_of(*s) > 1 ? 1 : -1;
}

// The weights of the units from panel p on, in the order of a tile of the forward pass.
template <class Stored>
void pack_weights(const Given<Stored>& in, const Packed<Stored>& w_ih, const Packed<Stored>& w_hh, int64_t p,
                  int64_t i, int64_t n) {
  const int first = in.blocks.first_of_h();
  if (in.input == JRNN_VECTORS) pack<Stored>([&](int g) { return in.block_of_w_ih(g).from_panel(p); }, w_ih, i, n);
  pack<Stored>([&](int g) { return in.block_of_w_hh(first + g).from_panel(p); }, w_hh, i, n);
}

template <class Stored>
void forward_prepare(const JrnnForward& call, int32_t task) {
  const JrnnSizes& s = call.sizes;
  const auto mem = scratch_of<ForwardScratch<Stored>>(s, call.scratch, 0);
  const Given<Stored> in(s, call.in, call.hs, call.kept, mem.zeros);
  const int32_t n = tasks_of_packing(s);
  for (int i = 0; i < sides_of(s); ++i) {
    const Side<Stored>& side = mem.sides[i];
    pack_weights(in, side.w_ih, side.w_hh, side.p0, task, n);
  }
  if (task) return;
  pad_bias(in, mem.bias);
  memset(mem.zeros, 0, s.H * sizeof(RealOf<Stored>));
  if (mem.pair) Pair(mem.pair).begin();
}

// Phases 1 and 2 of one sequence in two sides.
template <class Group>
void forward_sides(const JrnnSizes& s, const Group& group, int32_t phase, int32_t task) {
  const int64_t steps = group.in.length(0);
  const Pair pair(group.mem.pair, (s.H + s.I) * s.H * group.in.blocks.each);
  auto step_of_side = [&](int64_t t, int side, const Wait& wait) {
    return group.step_of_side(s, t, steps, side, wait);
  };
  const Step step(step_of_side);
  if (phase == 2) {
    go_on_alone(pair, steps, step);
    group.leave(steps);
  } else if (task == 0) {
    group.enter(group.projected_steps(s));
    go_first(pair, steps, step);
  } else if (!group.in.resets) go_second(pair, steps, step);  // a reset changes what both sides read
}

template <class Stored>
void forward_slice(const JrnnForward& call, int32_t phase, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnSizes& s = call.sizes;
  const bool two_sides = sides_of(s) > 1, lstm = s.cell == JRNN_LSTM;
  const int32_t slice = two_sides ? 0 : task;
  const auto mem = scratch_of<ForwardScratch<Stored>>(s, call.scratch, slice);
  const Given<Stored> in(s, call.in, call.hs, call.kept, mem.zeros);
  const Rows<Real> last = {(Real*)call.last[lstm], s.H}, last_h = {lstm ? (Real*)call.last[0] : nullptr, s.H};
  with_cell<Real>(s, [&](auto cell) {
    for_groups(s, slice, [&](int64_t b0, int64_t rows) {
      auto* hs = (OutputOf<Stored>*)call.hs;
      ForwardGroup<Stored, decltype(cell)> group{cell, in, mem, b0, rows, hs, (Real*)call.kept, {}, last, last_h};
      for (int g = 0; g < decltype(cell)::GATES; ++g)
        group.gates[g] = (Real*)call.gates[RIGHT_OR_FAULT(in.blocks.place(g), 29, g)];
      if (two_sides) forward_sides(s, group, phase, task);
      else group.run(s);
    });
  });
}

template <class Stored>
void forward_run(const JrnnForward* call, int32_t phase, int32_t task) {
  if (phase == 0) forward_prepare<Stored>(*call, task);
  else forward_slice<Stored>(*call, phase, task);
}

}  // namespace
