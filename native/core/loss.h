// Readout and softmax cross-entropy of N positions: (3) to (5), (7), (8), (10) of jrnn/loss/softmax.py.
//
//     o_n   = h_n w_ho + b_o              p_n   = e^(o_n - top_n) / sum_k e^(o_nk - top_n)
//     J_n   = -log p_n[label_n]           delta_n = p_n - y_n
//     dh_n  = g_n delta_n w_ho^T          dw_ho = sum_n h_n^T g_n delta_n          db_o = sum_n g_n delta_n
//
// top_n is the largest of o_n, y_n one-hot, g_n the cotangent of J_n. The positions are cut into slices, which go
// through theirs in chunks: logits, and g_n delta_n, stay in the first caches. Each slice sums its own gradients.
#pragma once

#include "weights.h"

namespace {

constexpr int64_t POSITIONS = 64;  // of a chunk

INLINE int64_t positions_of_chunk(const JrnnLossSizes& s) { return smaller(POSITIONS, s.N); }

// f(first position, positions) for each chunk of a slice.
template <class F>
INLINE void for_chunks(const JrnnLossSizes& s, int64_t slice, F f) {
  const int64_t n = slices_of(s), end = s.N * (slice + 1) / n;
  for (int64_t at = s.N * slice / n; at < end; at += POSITIONS) f(at, smaller(POSITIONS, end - at));
}

// f(r, p, v): the vector of sums of row r and panel p, for some rows x weights.
template <class Stored, class F>
INLINE void for_sums(int64_t rows, const Start<RealOf<Stored>>& start, const Term<Stored>& term, F f) {
  for_tiles<Stored>(rows, start, &term, 1, 0, no_prefetch, [&](const Part<RealOf<Stored>>& part) {
    for (int i = 0; i < part.rows; ++i)
      for (int v = 0; v < part.nv; ++v) f(part.r0 + i, part.p0 + v, part.at(i, v));
  });
}

// --- the losses -----------------------------------------------------------------------------------

template <class Stored>
struct LossScratch {
  using Real = RealOf<Stored>;
  Packed<Stored> w;
  Real* bias;
  Blocks<Stored> hs;
  Rows<Real> logits;

  void shared(const JrnnLossSizes& s, Arena& arena) {
    w = arena.packed<Stored>(s.H, s.O, widest_for(positions_of_chunk(s)));
    bias = arena.take<Real>(panels<Real>(s.O) * W<Real>);
  }
  void own(const JrnnLossSizes& s, Arena& arena) {
    hs = arena.blocks<Stored>(positions_of_chunk(s), s.H);
    logits.stride = panels<Real>(s.O) * W<Real>;
    logits.at = arena.take<Real>(positions_of_chunk(s) * logits.stride);
  }
};

template <class Stored>
void loss_prepare(const JrnnLoss& c, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnLossSizes& s = c.sizes;
  const auto mem = scratch_of<LossScratch<Stored>>(s, c.scratch, 0);
  const Strided<Real> w = {(const Real*)c.w_ho, s.O, 1};
  pack<Stored>([&](int) { return w; }, mem.w, task, slices_of(s));
  if (task) return;
  for (int64_t p = 0; p < panels<Real>(s.O); ++p) {  // classes that are not there have the probability 0
    const int n = width<Real>(s.O, p);
    Vector<Real> b = c.b_o ? load<Real>((const Real*)c.b_o + p * W<Real>, n) : Vector<Real>{};
    for (int i = n; i < W<Real>; ++i) b[i] = RIGHT_OR_FAULT(-Real(__builtin_inf()), 46, 0);
    store<Real>(mem.bias + p * W<Real>, b);
  }
}

INLINE float log_of(float x) { return __builtin_logf(x); }
INLINE double log_of(double x) { return __builtin_log(x); }

// J of a row of logits, which is in whole panels and is overwritten; delta [O] null: not wanted. A label that is no
// class gives NaN.
template <class Real>
INLINE Real loss_of_row(Real* o, int64_t O, int64_t label, Real* delta) {
  const int64_t count = panels<Real>(O);
  const bool is_class = label >= 0 && label < O;
  const Real own = is_class ? o[label] : Real(__builtin_nan(""));
  Vector<Real> tops = load<Real>(o), sums{};
  for (int64_t p = 1; p < count; ++p) {
    const Vector<Real> x = load<Real>(o + p * W<Real>);
    tops = x > tops ? x : tops;
  }
  Real top = tops[0], sum = 0;
  for (int i = 1; i < W<Real>; ++i) top = larger<Real>(tops[i], top);
  for (int64_t p = 0; p < count; ++p) {
    const Vector<Real> e = exp_of<Real>(load<Real>(o + p * W<Real>) - RIGHT_OR_FAULT(top, 47, smaller<Real>(top, 1)));
    store<Real>(o + p * W<Real>, e);
    sums += e;
  }
  for (int i = 0; i < W<Real>; ++i) sum += sums[i];
  if (delta) {
    const Real share = is_class ? 1 / sum : own;
    for (int64_t p = 0; p < count; ++p)
      store<Real>(delta + p * W<Real>, load<Real>(o + p * W<Real>) * share, width<Real>(O, p));
    if (is_class) delta[label] -= RIGHT_OR_FAULT(1, 49, 0);
  }
  return log_of(sum) - (own - top);
}

template <class Stored>
void loss_slice(const JrnnLoss& c, int32_t slice) {
  using Real = RealOf<Stored>;
  const JrnnLossSizes& s = c.sizes;
  const auto mem = scratch_of<LossScratch<Stored>>(s, c.scratch, slice);
  clear_rest(mem.hs, positions_of_chunk(s), s.H);
  for_chunks(s, slice, [&](int64_t first, int64_t rows) {
    for (int64_t r = 0; r < rows; ++r) block_row(mem.hs.from(r), (const Real*)c.hs + (first + r) * s.H, s.H);
    for_sums<Stored>(rows, {mem.bias, 0, W<Real>}, {mem.hs, mem.w}, [&](int64_t r, int64_t p, Vector<Real> o) {
      store<Real>(mem.logits.row(r) + p * W<Real>, o);
    });
    for (int64_t r = 0, n = first; r < rows; ++r, ++n)
      ((Real*)c.losses)[n] =
          loss_of_row(mem.logits.row(r), s.O, c.labels[n], c.deltas ? (Real*)c.deltas + n * s.O : nullptr);
  });
}

// Phase 0 packs w_ho.
inline int32_t loss_tasks(const JrnnLossSizes* s, int32_t phase) { return phase > 1 ? -1 : int32_t(slices_of(*s)); }

template <class Stored>
void loss_run(const JrnnLoss* call, int32_t phase, int32_t task) {
  if (!phase) loss_prepare<Stored>(*call, task);
  else loss_slice<Stored>(*call, task);
}

// --- their gradients ------------------------------------------------------------------------------

template <class Stored>
struct LossGradientScratch {
  using Real = RealOf<Stored>;
  Packed<Stored> w_t;
  Real* zeros;
  Real *dw, *db;  // [panels][H][W] and [panels][W]
  Blocks<Stored> hs, deltas, hs_in_terms, deltas_in_terms;

  static int64_t columns(const JrnnLossSizes& s) { return panels<Real>(s.O) * W<Real>; }
  void shared(const JrnnLossSizes& s, Arena& arena) {
    w_t = arena.packed<Stored>(s.O, s.H, widest_for(positions_of_chunk(s)));
    zeros = arena.take<Real>(W<Real>);
  }
  void own(const JrnnLossSizes& s, Arena& arena) {
    const int64_t rows = positions_of_chunk(s);
    dw = arena.take<Real>(s.H * columns(s)), db = arena.take<Real>(columns(s));
    deltas = arena.blocks<Stored>(rows, s.O);
    if (!HAS_TILES) hs = arena.blocks<Stored>(rows, s.H);
    if (NUMBERS<Stored> == 1) return;
    auto in_terms = [&](int64_t n) {
      return arena.blocks<Stored>(filled_terms<Stored>(rows), panels<Real>(n) * W<Stored>);
    };
    hs_in_terms = in_terms(s.H), deltas_in_terms = in_terms(s.O);
  }
};

template <class Stored>
void loss_gradient_prepare(const JrnnLossGradient& c, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnLossSizes& s = c.sizes;
  const auto mem = scratch_of<LossGradientScratch<Stored>>(s, c.scratch, 0);
  const Strided<Real> w_t = {(const Real*)c.w_ho, 1, s.O};
  if (c.dhs) pack<Stored>([&](int) { return w_t; }, mem.w_t, task, slices_of(s));
  if (!task) store<Real>(mem.zeros, Vector<Real>{});
}

// Of some positions: g_n delta_n, dh_n, and what they add to the sums of the slice.
template <class Stored>
void loss_gradient_chunk(const JrnnLossGradient& c, const LossGradientScratch<Stored>& mem, int64_t first,
                         int64_t rows) {
  using Real = RealOf<Stored>;
  const JrnnLossSizes& s = c.sizes;
  const Real* hs = (const Real*)c.hs + first * s.H;
  for (int64_t r = 0, n = first; r < rows; ++r, ++n)
    for (int64_t p = 0; p < panels<Real>(s.O); ++p) {
      const int columns = width<Real>(s.O, p);
      Vector<Real> d = load<Real>((const Real*)c.deltas + n * s.O + p * W<Real>, columns);
      d *= RIGHT_OR_FAULT(((const Real*)c.dlosses)[n], 48, ((const Real*)c.dlosses)[first]);
      if (columns < W<Real>) d = first_of<Real>(d, columns);
      store<Real>(mem.deltas.vector(r, p), d);
    }
  if (c.dhs)
    for_sums<Stored>(rows, {mem.zeros, 0, 0}, {mem.deltas, mem.w_t}, [&](int64_t r, int64_t p, Vector<Real> dh) {
      store<Real>((Real*)c.dhs + (first + r) * s.H + p * W<Real>, dh, width<Real>(s.H, p));
    });
  Blocks<Stored> left = mem.hs_in_terms;
  if constexpr (HAS_TILES) store_rows_as_columns<Stored>(hs, rows, s.H, left);
  else {
    for (int64_t r = 0; r < rows; ++r) block_row(mem.hs.from(r), hs + r * s.H, s.H);
    left = in_terms_of_rows(mem.hs, rows, 1, s.H, 0, panels<Real>(s.H), left);
  }
  const Blocks<Stored> right = in_terms_of_rows(mem.deltas, rows, 1, s.O, 0, panels<Real>(s.O), mem.deltas_in_terms);
  add_transposed<Stored>(left, s.H, right, terms_of<Stored>(rows), 0, panels<Real>(s.O), mem.dw);
  add_column_sums(right, terms_of<Stored>(rows), 0, panels<Real>(s.O), mem.db);
}

template <class Stored>
void loss_gradient_slice(const JrnnLossGradient& c, int32_t slice) {
  using Real = RealOf<Stored>;
  const JrnnLossSizes& s = c.sizes;
  const auto mem = scratch_of<LossGradientScratch<Stored>>(s, c.scratch, slice);
  memset(mem.dw, 0, s.H * mem.columns(s) * sizeof(Real)), memset(mem.db, 0, mem.columns(s) * sizeof(Real));
  clear_rest(mem.deltas, positions_of_chunk(s), s.O);
  for_chunks(s, slice, [&](int64_t first, int64_t rows) { loss_gradient_chunk(c, mem, first, rows); });
}

// The sums of all slices, of some panels of classes.
template <class Stored>
void loss_gradient_sums(const JrnnLossGradient& c, int32_t task) {
  using Real = RealOf<Stored>;
  const JrnnLossSizes& s = c.sizes;
  const int64_t n = slices_of(s), count = panels<Real>(s.O), p0 = count * task / n, p1 = count * (task + 1) / n;
  const auto mem = scratch_of<LossGradientScratch<Stored>>(s, c.scratch, 0);
  const int64_t next = n > 1 ? scratch_of<LossGradientScratch<Stored>>(s, c.scratch, 1).dw - mem.dw : 0;
  auto as_is = [](int g) { return g; };
  sum_slices<Real>(s.H, s.O, 1, n, p0, p1, mem.dw, next, as_is, (Real*)c.dw_ho);
  if (c.db_o) sum_slices<Real>(1, s.O, 1, n, p0, p1, mem.db, next, as_is, (Real*)c.db_o);
}

inline int32_t loss_gradient_tasks(const JrnnLossSizes* s, int32_t phase) {
  return phase > 2 ? -1 : int32_t(slices_of(*s));
}

template <class Stored>
void loss_gradient_run(const JrnnLossGradient* call, int32_t phase, int32_t task) {
  if (!phase) loss_gradient_prepare<Stored>(*call, task);
  else if (phase == 1) loss_gradient_slice<Stored>(*call, task);
  else loss_gradient_sums<Stored>(*call, task);
}

}  // namespace
