// The arguments of a call, typed; the state that enters a step (15); where the scratch is.
#pragma once

#include "blocks.h"
#include "math.h"
#include "pack.h"

namespace {

// --- how the batch is cut -------------------------------------------------------------------------
// A slice is the rows of one task. It runs through all steps by itself, in groups of rows whose
// states and deltas stay in the cache.

constexpr int64_t GROUP = HAS_TILES ? 64 : 128;  // numbers in parts have 1.5 of the bytes

INLINE int64_t slices_of(const JrnnSizes& s) { return smaller<int64_t>(s.slices, s.B); }
INLINE int64_t slices_of(const JrnnLossSizes& s) { return smaller<int64_t>(s.slices, s.N); }
INLINE int64_t rows_of_group(const JrnnSizes& s) {
  return smaller(GROUP, (s.B + slices_of(s) - 1) / slices_of(s));
}

// f(first row, rows) for each group of a slice.
template <class F>
INLINE void for_groups(const JrnnSizes& s, int64_t slice, F f) {
  const int64_t n = slices_of(s), begin = s.B * slice / n, rows = s.B * (slice + 1) / n - begin;
  const int64_t groups = (rows + GROUP - 1) / GROUP;
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t b0 = rows * i / groups, b1 = rows * (i + 1) / groups;
    f(begin + b0, b1 - b0);
  }
}

// --- scratch --------------------------------------------------------------------------------------

// Takes arrays one after the other; with base null it counts only.
struct Arena {
  char* base;
  size_t used = 0;
  explicit Arena(void* at) : base((char*)(((uintptr_t)at + 63) / 64 * 64)) {}
  template <class Real>
  Real* take(int64_t n) {
    Real* p = (Real*)((uintptr_t)base + used);
    used += ((size_t)n * sizeof(Real) + 63) / 64 * 64;
    return p;
  }
  template <class Stored>
  Blocks<Stored> blocks(int64_t rows, int64_t columns) {
    return {take<Stored>(rows * ROW<Stored> * panels<Stored>(columns)), rows * ROW<Stored>};
  }
  template <class Stored>
  Packed<Stored> packed(int64_t K, int64_t columns, int widest, int blocks = 1) {
    const int64_t rows = filled_terms<Stored>(K) * ROW<Stored>;
    return {take<Stored>(rows * panels<RealOf<Stored>>(columns) * blocks), K, columns, widest, blocks};
  }
};

// The scratch of a pass: what the slices share, then the same for each slice.
template <class Scratch, class Sizes>
Scratch scratch_of(const Sizes& s, void* base, int64_t slice, size_t* bytes = nullptr) {
  Scratch found{};
  Arena arena(base);
  found.shared(s, arena);
  const size_t shared = arena.used;
  found.own(s, arena);
  const size_t each = arena.used - shared;
  arena.used = shared + each * (size_t)slice;
  found.own(s, arena);
  if (bytes) *bytes = arena.used + 64;
  return found;
}
template <class Scratch, class Sizes>
size_t bytes_of(const Sizes& s) {
  size_t bytes;
  scratch_of<Scratch>(s, nullptr, slices_of(s) - 1, &bytes);
  return bytes;
}

// --- arguments ------------------------------------------------------------------------------------

// One row for each sequence.
template <class Real>
struct Rows {
  Real* at = nullptr;
  int64_t stride = 0;
  Real* row(int64_t b) const { return at + b * stride; }
  explicit operator bool() const { return at != nullptr; }
};

// The state that enters a step (of an LSTM c); its output, as a step stored it or as it is given. Both
// null: the cell computes it from the state.
template <class Stored>
struct Entering {
  const RealOf<Stored>* state;
  const RealOf<Stored>* output;
  const OutputOf<Stored>* stored;
};

template <class Stored>
struct Given {
  using Real = RealOf<Stored>;
  int64_t T, B, I, H;
  int32_t input;
  int32_t phi_of_state;  // the output is phi of the state: (29); else JRNN_IDENTITY
  CellBlocks blocks;
  const Real* xs;
  const int32_t* ids;
  const Real *w_ih, *w_hh, *b;
  Rows<const Real> start, reset_state, mask, alpha;
  Rows<const Real> start_output, reset_output;  // an LSTM's h; null: of the states above
  const int32_t* lengths;
  const uint8_t* resets;
  const OutputOf<Stored>* hs;  // [T, B, H] as far as they are known
  const Real* states;  // [T, B, H]: hs, or what is kept instead; null: no step reads them
  const Real* gates[JRNN_GATES] = {};  // [T, B, H]; of the backward pass, in the order of blocks.h

  // zeros: [H]
  Given(const JrnnSizes& s, const JrnnInputs& in, const void* outputs, const void* kept, const Real* zeros)
      : T(s.T), B(s.B), I(s.I), H(s.H), input(s.input),
        phi_of_state(s.cell == JRNN_LEAKY_INPUT ? s.phi : JRNN_IDENTITY), blocks(blocks_of(s.cell)),
        xs((const Real*)in.xs), ids((const int32_t*)in.xs),
        w_ih((const Real*)in.w_ih), w_hh((const Real*)in.w_hh), b((const Real*)in.b),
        start(rows_or(in.start[s.cell == JRNN_LSTM], zeros)),
        reset_state(rows_or(in.reset_state[s.cell == JRNN_LSTM], zeros)),
        mask{(const Real*)in.recurrent_mask, s.H}, alpha{(const Real*)in.alpha, s.H},
        lengths(in.lengths), resets(in.resets), hs((const OutputOf<Stored>*)outputs),
        states((const Real*)(is_rounded<Stored> || s.cell == JRNN_LSTM || s.cell == JRNN_LEAKY_INPUT ? kept : outputs)) {
    if (s.cell != JRNN_LSTM) return;
    start_output = rows_or(in.start[0], zeros), reset_output = rows_or(in.reset_state[0], zeros);
  }

  Rows<const Real> rows_or(const void* at, const Real* zeros) const {
    if (at) return {(const Real*)at, H};
    return {zeros, 0};
  }
  int64_t length(int64_t row) const {
    return lengths ? smaller<int64_t>(larger<int64_t>(lengths[row], 0), T) : T;
  }
  // The steps of the longest of some sequences.
  int64_t longest(int64_t b0, int64_t rows) const {
    int64_t steps = 0;
    for (int64_t r = 0; r < rows; ++r) steps = larger(steps, length(b0 + r));
    return steps;
  }
  bool starts_anew(int64_t t, int64_t row) const {  // r_t; the padding has none
    return resets && resets[t * B + row] && t < length(row);
  }
  const Real* before(int64_t t, int64_t row) const {  // s_{t-1}, steps counted from 0
    if (!t) return start.row(row);
    return states ? states + ((t - 1) * B + row) * H : nullptr;
  }
  Entering<Stored> entering(int64_t t, int64_t row) const {  // e_{t-1} of (15)
    if (starts_anew(RIGHT_OR_FAULT(t, 2, t ? t - 1 : 0), row))
      return {reset_state.row(row), of(reset_output, row), nullptr};
    if (t) return {before(t, row), nullptr, hs + ((t - 1) * B + row) * H};
    return {before(t, row), of(RIGHT_OR_FAULT(start_output, 26, start), row), nullptr};
  }
  Vector<Real> output(Vector<Real> state) const { return phi_of<Real>(phi_of_state, state); }
  static const Real* of(Rows<const Real> outputs, int64_t row) { return outputs ? outputs.row(row) : nullptr; }
  // The inputs of a step into blocks. In the padding they may be NaN: 0 * NaN would reach a weight.
  void block_inputs(int64_t t, int64_t row, Blocks<Stored> to) const {
    if (t >= RIGHT_OR_FAULT(length(row), 3, T)) return clear_row(to, I);
    block_row(to, xs + (t * B + row) * I, I);
  }
  // W numbers of block g of x_t w_ih that need no matmul: of a row of w_ih, or of the inputs to be added.
  Vector<Real> projected(int64_t t, int64_t row, int g, int64_t j, int columns) const {
    if (g >= blocks.each) return Vector<Real>{};
    const int64_t at = blocks.place(g) * H + j;
    if (input == JRNN_ADDED) return load<Real>(xs + (t * B + row) * blocks.each * H + at, columns);
    const int64_t k = id(t, row);
    return k < 0 ? broadcast(Real(__builtin_nan(""))) : load<Real>(w_ih + k * blocks.each * H + at, columns);
  }
  // The blocks of the weights, as they are given and transposed.
  Strided<Real> block_of_w_ih(int g) const { return {w_ih + blocks.place(g) * H, blocks.each * H, 1}; }
  Strided<Real> block_of_w_hh(int g) const { return {w_hh + blocks.place_in_w_hh(g) * H, blocks.each * H, 1}; }
  Strided<Real> transposed_w_ih(int g) const { return {w_ih + blocks.place(g) * H, 1, blocks.each * H}; }
  Strided<Real> transposed_w_hh(int g) const { return {w_hh + blocks.place_in_w_hh(g) * H, 1, blocks.each * H}; }
  // The id of a step, or -1.
  int64_t id(int64_t t, int64_t row) const {
    const int32_t k = ids[t * B + row] + RIGHT_OR_FAULT(0, 4, 1);
    return t < length(row) && k >= 0 && k < I ? k : -1;
  }
};

}  // namespace
