// The core called by its interface: threads, memory with borders that nothing may touch.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "../shim/pool.h"
#include "cases.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
#endif

namespace test {

// Denormals are flushed, as on XLA's threads.
inline void flush_denormals() { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | 0x8040); }

// f(0) ... f(n - 1) on some threads, in any order.
inline void parallel(int threads, int n, const std::function<void(int)>& f) {
  std::atomic<int> next{0};
  auto work = [&] {
    flush_denormals();
    for (int i; (i = next.fetch_add(1)) < n;) f(i);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < std::min(threads, n); ++i) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
}

// n elements that no register's alignment holds, between borders. They begin as NaN.
template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t n = 0) : count(n), bytes(2 * BORDER + n * sizeof(T) + sizeof(T)) {
    for (unsigned char& x : bytes) x = FILL;
    if (n > 0) memset(data(), 0xff, n * sizeof(T));
    poison(true);
  }
  explicit Guarded(const Array<T>& from) : Guarded(int64_t(from.size())) {
    if (count) memcpy(data(), from.data(), count * sizeof(T));
  }
  Guarded(Guarded&& other) : count(other.count), bytes(std::move(other.bytes)) { other.count = 0; }
  Guarded(const Guarded&) = delete;
  ~Guarded() { poison(false); }

  T* data() { return (T*)(bytes.data() + BORDER + sizeof(T)); }
  T* or_null() { return count ? data() : nullptr; }
  Array<T> values() { return Array<T>(data(), data() + count); }
  bool intact() {
    poison(false);
    const unsigned char *at = bytes.data(), *end = at + bytes.size();
    const unsigned char *begin = (unsigned char*)data(), *after = begin + count * sizeof(T);
    bool good = true;
    for (; at < begin; ++at) good &= *at == FILL;
    for (at = after; at < end; ++at) good &= *at == FILL;
    poison(true);
    return good;
  }

 private:
  static constexpr int64_t BORDER = 256;
  static constexpr unsigned char FILL = 0xa5;
  int64_t count;
  std::vector<unsigned char> bytes;

  void poison(bool on) {
    if (bytes.empty()) return;
    unsigned char *begin = (unsigned char*)data(), *after = begin + count * sizeof(T);
    unsigned char* end = bytes.data() + bytes.size();
    if (on) {
      POISON(bytes.data(), begin - bytes.data());
      POISON(after, end - after);
    } else UNPOISON(bytes.data(), bytes.size());
  }
};

// Threads like those of XLA's pool, each for one piece of work.
class Threads {
 public:
  explicit Threads(int n) : count(n) {}
  ~Threads() {
    for (std::thread& t : all) t.join();
  }
  int64_t num_threads() const { return count; }
  template <class Work>
  void Schedule(Work work) {
    all.emplace_back([work] { flush_denormals(), work(); });
  }

 private:
  const int count;
  std::vector<std::thread> all;
};

// By one thread the tasks of a phase are run from the last to the first: their order does not matter.
template <class Pass, class Call>
void run_pass(const Pass& pass, const Call& call, int threads) {
  if (threads > 1) {
    Threads others(threads - 1);
    return jrnn::run_pass(others, pass, call);
  }
  for (int phase = 0, n; (n = pass.tasks(&call.sizes, phase)) >= 0; ++phase)
    while (n) pass.run(&call, phase, --n);
}

// bfloat16, the upper half of a float. Numbers that are stored as they are need no conversion.
struct Half {
  uint16_t bits;
};
inline Half stored(float x, Half) {  // x is a number of bfloat16
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return {uint16_t(bits >> 16)};
}
inline float computed(Half x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <class Real>
Real stored(Real x, Real) {
  return x;
}
template <class Real>
Real computed(Real x) {
  return x;
}
template <class Stored>
using Computed = decltype(computed(Stored()));
template <class Stored>
constexpr bool rounds = sizeof(Stored) == 2;
template <class Stored>
Array<Stored> all_stored(const Array<Computed<Stored>>& from) {
  Array<Stored> to;
  for (auto x : from) to.push_back(stored(x, Stored()));
  return to;
}
template <class Stored>
Array<Computed<Stored>> all_computed(const Array<Stored>& from) {
  Array<Computed<Stored>> to;
  for (Stored x : from) to.push_back(computed(x));
  return to;
}

// The largest error; NaN counts as infinitely wrong.
template <class Real>
double error(const Array<Real>& found, const Array<double>& expected) {
  double most = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double e = std::fabs(double(found[i]) - expected[i]);
    most = std::isnan(e) ? INFINITY : std::max(most, e);
  }
  return most;
}

inline const JrnnReal& real_of(const JrnnCore& core, float) { return core.f32; }
inline const JrnnReal& real_of(const JrnnCore& core, double) { return core.f64; }
inline const JrnnReal& real_of(const JrnnCore& core, Half) { return core.bf16; }

// Both passes of one call. `asked`: the bits of the results that are asked for.
template <class Stored>
class Call {
 public:
  using Real = Computed<Stored>;
  Call(const JrnnCore& core, const Inputs<Real>& in, uint64_t asked)
      : s(in.sizes), real(real_of(core, Stored())), BH(s.B * s.H), fed(fed_of(s) * s.H), xs(in.xs), w_ih(in.w_ih),
        w_hh(in.w_hh), b(in.b), start(in.start), start_c(in.start_c), reset_state(in.reset_state),
        reset_state_c(in.reset_state_c), mask(in.mask), alpha(in.alpha), dhs(all_stored<Stored>(in.dhs)), d_last(in.d_last),
        d_last_c(in.d_last_c), ids(in.ids), lengths(in.lengths), resets(in.resets), hs(s.T * BH),
        kept(keeps(s, rounds<Stored>) ? s.T * BH : 0), gates(of_gates()), last(asked & 1 ? BH : 0), last_c(of_c(asked & 128)),
        dw_ih(asked & 2 ? s.I * fed : 0), dw_hh(asked & 4 ? s.H * fed : 0), db(asked & 8 ? blocks_of(s) * s.H : 0),
        dx(s.wanted & JRNN_WANT_DX ? s.T * s.B * (s.input == JRNN_ADDED ? fed : s.I) : 0),
        d_start(asked & 16 ? BH : 0), d_start_c(of_c(asked & 256)), d_reset(asked & 32 ? BH : 0),
        d_reset_c(of_c(asked & 512)), d_mask(asked & 64 ? BH : 0), d_alpha(s.wanted & JRNN_WANT_DALPHA ? BH : 0),
        scratch_f(real.forward.scratch_bytes(&s)), scratch_b(real.backward.scratch_bytes(&s)) {
    given.xs = s.input == JRNN_IDS ? (const void*)ids.data() : xs.data();
    given.w_ih = w_ih.or_null(), given.w_hh = w_hh.data(), given.b = b.or_null();
    given.start[0] = start.or_null(), given.reset_state[0] = reset_state.or_null();
    given.start[1] = start_c.or_null(), given.reset_state[1] = reset_state_c.or_null();
    given.recurrent_mask = mask.or_null(), given.alpha = alpha.or_null();
    given.lengths = lengths.or_null(), given.resets = resets.or_null();
    clip = in.clip;
  }

  void run(int threads) {
    forward(threads);
    JrnnBackward g{};
    g.sizes = s, g.in = given, g.hs = hs.data(), g.kept = kept.or_null(), g.dhs = dhs.or_null();
    for (size_t n = 0; n < gates.size(); ++n) g.gates[n] = gates[n].data();
    g.d_last[0] = d_last.or_null(), g.d_last[1] = d_last_c.or_null(), g.clip_delta = clip;
    g.dw_ih = dw_ih.or_null(), g.dw_hh = dw_hh.or_null(), g.db = db.or_null(), g.dx = dx.or_null();
    g.d_start[0] = d_start.or_null(), g.d_start[1] = d_start_c.or_null(), g.d_mask = d_mask.or_null();
    g.d_reset_state[0] = d_reset.or_null(), g.d_reset_state[1] = d_reset_c.or_null();
    g.d_alpha = d_alpha.or_null(), g.scratch = scratch_b.data();
    run_pass(real.backward, g, threads);
  }
  void forward(int threads, bool keep_gates = true) {
    JrnnForward f{};
    f.sizes = s, f.in = given, f.hs = hs.data(), f.kept = kept.or_null(), f.scratch = scratch_f.data();
    for (size_t n = 0; n < gates.size() && keep_gates; ++n) f.gates[n] = gates[n].data();
    f.last[0] = last.or_null(), f.last[1] = last_c.or_null();
    run_pass(real.forward, f, threads);
  }

  // Empty where it was not asked for.
  Results<Real> results() {
    Results<Real> r;
    r.hs = all_computed(hs.values()), r.kept = kept.values(), r.last = last.values(), r.last_c = last_c.values();
    for (size_t n = 0; n < gates.size(); ++n) r.gates[n] = gates[n].values();
    r.dw_ih = dw_ih.values(), r.dw_hh = dw_hh.values(), r.db = db.values(), r.dx = dx.values();
    r.d_start = d_start.values(), r.d_start_c = d_start_c.values(), r.d_reset = d_reset.values();
    r.d_reset_c = d_reset_c.values(), r.d_mask = d_mask.values(), r.d_alpha = d_alpha.values();
    return r;
  }
  bool borders_intact() {
    bool good = scratch_f.intact() && scratch_b.intact() && hs.intact() && dhs.intact();
    for (Guarded<Real>* x : {&xs, &w_ih, &w_hh, &b, &start, &start_c, &reset_state, &reset_state_c, &mask, &alpha,
                             &d_last, &d_last_c, &kept, &last, &last_c, &dw_ih, &dw_hh, &db, &dx, &d_start,
                             &d_start_c, &d_reset, &d_reset_c, &d_mask, &d_alpha})
      good &= x->intact();
    for (Guarded<Real>& x : gates) good &= x.intact();
    return good;
  }

 private:
  JrnnSizes s;
  const JrnnReal& real;
  int64_t BH, fed;
  Guarded<Real> xs, w_ih, w_hh, b, start, start_c, reset_state, reset_state_c, mask, alpha;
  Guarded<Stored> dhs;
  Guarded<Real> d_last, d_last_c;
  Guarded<int32_t> ids, lengths;
  Guarded<uint8_t> resets;
  Guarded<Stored> hs;
  Guarded<Real> kept;
  std::vector<Guarded<Real>> gates;
  Guarded<Real> last, last_c, dw_ih, dw_hh, db, dx, d_start, d_start_c, d_reset, d_reset_c, d_mask, d_alpha;
  Guarded<char> scratch_f, scratch_b;
  JrnnInputs given{};
  double clip;

  int64_t of_c(uint64_t asked) const { return asked && s.cell == JRNN_LSTM ? BH : 0; }
  std::vector<Guarded<Real>> of_gates() const {
    std::vector<Guarded<Real>> all;
    for (int g = 0; g < gates_of(s); ++g) all.emplace_back(s.T * BH);
    return all;
  }
};

}  // namespace test
