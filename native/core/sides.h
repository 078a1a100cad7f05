// The units of one sequence in two halves, the sides, and the products of a side: see pair.h.
#pragma once

#include "given.h"
#include "pair.h"

namespace {

// A whole line of the cache, and a whole panel of pairs.
constexpr int64_t WHOLE_UNITS = 32;

// The sides of a call: two of one sequence in two slices.
INLINE int sides_of(const JrnnSizes& s) {
  return !HAS_TILES && s.B == 1 && s.slices > 1 && s.H > WHOLE_UNITS ? 2 : 1;
}
// The first panel of each of some sides, and the number of panels.
template <class Real>
INLINE int64_t panel_of_side(const JrnnSizes& s, int sides, int side) {
  const int64_t half = (s.H + 2 * WHOLE_UNITS - 1) / (2 * WHOLE_UNITS) * WHOLE_UNITS;
  return side < sides ? side * half / W<Real> : panels<Real>(s.H);
}

template <class Real>
INLINE int64_t units_of_side(const JrnnSizes& s, int sides, int side) {
  const int64_t p0 = panel_of_side<Real>(s, sides, side), p1 = panel_of_side<Real>(s, sides, side + 1);
  return smaller(s.H, p1 * W<Real>) - p0 * W<Real>;
}

// A row of some blocks of all units, and the weights of a side. Without blocks it adds nothing.
template <class Stored>
struct RowOfSide {
  Term<Stored> term;
  int blocks;
  int64_t terms, of_first;  // of a block, and those of the first side
};
template <class Stored>
INLINE int64_t terms_of_first_side(const JrnnSizes& s) {
  return panel_of_side<RealOf<Stored>>(s, 2, 1) * W<RealOf<Stored>> / NUMBERS<Stored>;
}

// start + the product of a row, for the units of a side, in tiles: each goes to finish(part), where part.p0 counts
// from the first unit of the side. False: wait() was in vain, and nothing is finished.
template <class Stored, class Of, class StartOf, class AheadOf, class Finish>
INLINE bool for_tiles_of_side(const RowOfSide<Stored>& row, int side, bool back, const Wait& wait, StartOf start,
                              AheadOf ahead, Finish finish) {
  using Real = RealOf<Stored>;
  constexpr int MOST_BLOCKS = 4;
  alignas(64) Real sums[MOST_SUMS * W<Real>];
  Term<Stored> terms[2 * MOST_BLOCKS];
  const int n = row.blocks, widest = row.term.weights.widest;
  const int64_t count = row.term.weights.count();
  int nv = 0;
  for (int64_t done = 0; done < count; done += nv) {
    nv = back ? last_width(count - done, count, widest) : next_width(count - done, widest);
    const int64_t p = back ? count - done - nv : done;
    const bool at_once = done || !wait.pair;
    const int of_first_terms = at_once && back ? 1 - side : side;  // a tile takes the last terms first if `back`
    for (int i = 0; i < 2 * n; ++i) {
      const bool of_second = (i < n) == (of_first_terms == 1);
      const int64_t first = i % n * row.terms + of_second * row.of_first;
      const int64_t of_this = of_second ? RIGHT_OR_FAULT(row.terms - row.of_first, 51, row.of_first) : row.of_first;
      terms[i] = range_of<Stored, Of>(row.term, first, of_this, 0, p, nv);
    }
    auto add = [&](const Start<Real>& from, int i, int all, const Ahead& then) {
      run_tile<Stored, Of>(1, nv, Beside{}, from, terms + i, all, back, then, 0, 0, sums);
    };
    if (at_once) add(start(p), 0, 2 * n, ahead(p));
    else {
      add(start(p), 0, n, ahead(p));
      if (!RIGHT_OR_FAULT(wait(), 52, true)) return false;
      add({sums, 0, W<Real>}, n, n, Ahead{});
    }
    finish(part_of<Of::all>(1, 0, 1, p, nv, sums));
  }
  return true;
}

}  // namespace
