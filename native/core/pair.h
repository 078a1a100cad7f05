// One sequence on two cores, which go through time step by step together.
//
// Each has a side, half of the units, and reads its half of the weights from caches of its own. A step sums the
// products of the side's own h first: those of the other h, which the other core sends meanwhile, come last. So
// the order of a sum is the same on one core and on two, and a result has the same bits.
//
// Microseconds of a step by bare loops of these products, H = 128: two cores 0.21, one 0.44 (AMD EPYC, family 25,
// model 17, November 2026).
//
// A core may be late, be taken away or be far from the other. So the first thread goes alone until the second one
// is there; each waits for the other only for some time (`patience`); and if two take hardly less time than one,
// they part. Then the first goes on alone, as soon as the second has left; if that is taken away in a step, a later
// phase does the rest. The stages, in which threads change nothing but what is theirs:
//
//     ALONE      the first has both sides; OFFERED: the second has come, and waits
//     TOGETHER   each has its own
//     PARTED     nobody begins a step; GONE: the second has left
//
// A pass may go through time in several spans, each with the same `Pair`.
#pragma once

#include "vector.h"

namespace {

enum Stage : int64_t { ALONE, OFFERED, TOGETHER, PARTED, GONE };

#if defined(__SANITIZE_THREAD__)
constexpr int64_t SLOWER = 1000;  // the steps that it watches
#else
constexpr int64_t SLOWER = 1;
#endif

// What the threads share, in lines of the cache that lie apart.
struct Pair {
  static constexpr int64_t UNKNOWN = -1;
  static constexpr int64_t APART = 16, SIZE = 4 * APART;  // numbers: processors bring two lines at once
  int64_t *stage, *done, *faster;  // done: the steps that a side has made; faster: whether two are, UNKNOWN or bool
  int64_t patience;                // of ticks: 50 us and more, and longer than some steps
  int64_t several;                 // the steps whose time is measured
  int most_eighths;                // of the time of one thread that two may take
  // work: the products of a step
  explicit Pair(int64_t* at, int64_t work = 1, int eighths = 7)
      : stage(at), done(at + APART), faster(at + 3 * APART), patience(SLOWER * (150000 + work)),
        several(smaller<int64_t>(16, larger<int64_t>(1, (1 << 18) / work))), most_eighths(eighths) {}

  static int64_t read(const int64_t* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
  static void write(int64_t* at, int64_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }
  bool change(int64_t from, int64_t to) const {
    return __atomic_compare_exchange_n(stage, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  }
  int64_t steps_of(int side) const { return read(done + side * APART); }
  void made(int side, int64_t steps) const { write(done + side * APART, steps); }
  void begin_span() const { write(stage, ALONE), made(0, 0), made(1, 0); }
  void begin() const { begin_span(), write(faster, UNKNOWN); }
};

INLINE int64_t ticks() { return int64_t(__builtin_ia32_rdtsc()); }

// Until holds(), or in vain.
template <class Holds>
INLINE bool wait_until(const Pair& pair, Holds holds) {
  if (holds()) return true;
  const int64_t begin = ticks();
  do {
    for (int i = 0; i < 32; ++i)
      if (holds()) return true;
  } while (ticks() - begin < pair.patience);
  return false;
}

// How a step waits for the h of the other side, which has made as many steps: not at all on one thread.
struct Wait {
  const Pair* pair = nullptr;
  int other = 0;
  int64_t steps = 0;
  bool is_there() const { return pair->steps_of(other) >= steps; }
  bool operator()() const {
    return wait_until(*pair, [&] { return is_there() || Pair::read(pair->stage) >= PARTED; }) && is_there();
  }
};

// How long steps take: the shortest time of so many of them, one after the other.
class Pace {
 public:
  int64_t least = INT64_MAX, measured = 0;
  explicit Pace(int64_t steps) : several(steps) {}
  void step() {
    if (++n % several) return;
    const int64_t now = ticks();
    least = smaller(least, now - begin), begin = now, ++measured;
  }

 private:
  int64_t several, n = 0, begin = ticks();
};

// --- the tasks ------------------------------------------------------------------------------------

// f(t, side, wait): a step of a side, which calls wait() before it reads the h of the other. It ends without a
// result, and is false, if wait() is false. Its type is hidden: one copy of the tasks serves all cells.
class Step {
 public:
  template <class F>
  explicit Step(const F& f)
      : of(&f), run([](const void* p, int64_t t, int side, const Wait& wait) {
          return (*static_cast<const F*>(p))(t, side, wait);
        }) {}
  bool operator()(int64_t t, int side, const Wait& wait) const { return run(of, t, side, wait); }
  void alone(int64_t t) const {
    for (int i = 0; i < 2; ++i) run(of, t, int((t + i) % 2), Wait{});  // what was read last comes first
  }

 private:
  const void* of;
  bool (*run)(const void*, int64_t, int, const Wait&);
};

// What is left to one thread.
inline void go_on_alone(const Pair& pair, int64_t steps, const Step& step) {
  const int64_t made[2] = {pair.steps_of(0), pair.steps_of(1)}, t = larger(made[0], made[1]);
  for (int side = 0; side < 2; ++side)
    if (made[side] < t) step(made[side], side, Wait{});  // one side may be a step behind
  for (int64_t next = t; next < steps; ++next) step.alone(next);
  pair.made(0, steps), pair.made(1, steps);
}

// The first thread: alone, with the second one, and alone again.
inline void go_first(const Pair& pair, int64_t steps, const Step& step) {
  constexpr int64_t TRIED = 4;  // times of several steps
  const bool is_faster = Pair::read(pair.faster) == true;
  int64_t t = 0;
  if (steps) step.alone(t++);  // not measured: the first one of the backward pass has no product
  Pace one(pair.several);
  for (; t < steps && !((is_faster || one.measured) && Pair::read(pair.stage) == OFFERED); one.step())
    step.alone(t++);
  pair.made(0, t), pair.made(1, t);
  if (t < steps && pair.change(OFFERED, TOGETHER)) {
    for (Pace two(pair.several); t < steps && step(t, 0, Wait{&pair, 1, t}); two.step()) {
      pair.made(0, ++t);
      if (is_faster || two.measured != TRIED) continue;
      const bool faster = two.least < one.least / 8 * pair.most_eighths;
      Pair::write(pair.faster, faster);
      if (!faster) break;
    }
    pair.change(TOGETHER, PARTED);
    if (!wait_until(pair, [&] { return Pair::read(pair.stage) == GONE; })) return;
  } else if (!pair.change(ALONE, PARTED)) pair.change(OFFERED, PARTED);
  go_on_alone(pair, steps, step);
}

// The second one: it comes if two are not known to be slow, and has its side until they part.
inline void go_second(const Pair& pair, int64_t steps, const Step& step) {
  if (Pair::read(pair.faster) == false || !pair.change(ALONE, OFFERED)) return;
  const auto begins = [&] { return Pair::read(pair.stage) == TOGETHER; };
  if (!wait_until(pair, [&] { return Pair::read(pair.stage) != OFFERED; }) && pair.change(OFFERED, PARTED)) return;
  int64_t t = pair.steps_of(1) + RIGHT_OR_FAULT(0, 53, 1);
  while (begins() && t < steps && step(t, 1, Wait{&pair, 0, t})) pair.made(1, ++t);
  Pair::write(pair.stage, GONE);
}

}  // namespace
