// The core called by its interface: threads, memory with borders that nothing may touch.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

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
    for (int i; (i = next.fetch_add(1)) < n;) f(n - 1 - i);
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
    memset(data(), 0xff, n * sizeof(T));
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

template <class Pass, class Call>
void run_pass(const Pass& pass, const Call& call, int threads) {
  for (int phase = 0; phase < JRNN_PHASES; ++phase)
    parallel(threads, pass.tasks(&call.sizes, phase), [&](int task) { pass.run(&call, phase, task); });
}

inline const JrnnReal& real_of(const JrnnCore& core, float) { return core.f32; }
inline const JrnnReal& real_of(const JrnnCore& core, double) { return core.f64; }

// Both passes of one call. `asked`: the bits of the results that are asked for.
template <class Real>
class Call {
 public:
  Call(const JrnnCore& core, const Inputs<Real>& in, uint64_t asked)
      : s(in.sizes), real(real_of(core, Real())), xs(in.xs), w_ih(in.w_ih), w_hh(in.w_hh), b(in.b), start(in.start),
        reset_state(in.reset_state), mask(in.mask), alpha(in.alpha), dhs(in.dhs), d_last(in.d_last), ids(in.ids),
        lengths(in.lengths), resets(in.resets), hs(s.T * s.B * s.H),
        kept(s.cell == JRNN_ELMAN ? 0 : s.T * s.B * s.H), last(asked & 1 ? s.B * s.H : 0),
        dw_ih(asked & 2 ? s.I * s.H : 0), dw_hh(asked & 4 ? s.H * s.H : 0), db(asked & 8 ? s.H : 0),
        dx(s.wanted & JRNN_WANT_DX ? s.T * s.B * (s.input == JRNN_ADDED ? s.H : s.I) : 0),
        d_start(asked & 16 ? s.B * s.H : 0), d_reset(asked & 32 ? s.B * s.H : 0), d_mask(asked & 64 ? s.B * s.H : 0),
        d_alpha(s.wanted & JRNN_WANT_DALPHA ? s.B * s.H : 0), scratch_f(real.forward.scratch_bytes(&s)),
        scratch_b(real.backward.scratch_bytes(&s)) {
    given.xs = s.input == JRNN_IDS ? (const void*)ids.data() : xs.data();
    given.w_ih = w_ih.or_null(), given.w_hh = w_hh.data(), given.b = b.or_null();
    given.start[0] = start.or_null(), given.reset_state[0] = reset_state.or_null();
    given.recurrent_mask = mask.or_null(), given.alpha = alpha.or_null(), given.alpha_stride = in.alpha_stride;
    given.lengths = lengths.or_null(), given.resets = resets.or_null();
    clip = in.clip;
  }

  void run(int threads) {
    JrnnForward f{s, given, hs.data(), kept.or_null(), {last.or_null()}, scratch_f.data()};
    run_pass(real.forward, f, threads);
    JrnnBackward g{};
    g.sizes = s, g.in = given, g.hs = hs.data(), g.kept = kept.or_null(), g.dhs = dhs.or_null();
    g.d_last[0] = d_last.or_null(), g.clip_delta = clip, g.dw_ih = dw_ih.or_null(), g.dw_hh = dw_hh.or_null();
    g.db = db.or_null(), g.dx = dx.or_null(), g.d_start[0] = d_start.or_null(), g.d_mask = d_mask.or_null();
    g.d_reset_state[0] = d_reset.or_null(), g.d_alpha = d_alpha.or_null(), g.scratch = scratch_b.data();
    run_pass(real.backward, g, threads);
  }

  // Empty where it was not asked for.
  Results<Real> results() {
    return {hs.values(), kept.values(), last.values(), dw_ih.values(), dw_hh.values(), db.values(),
            dx.values(), d_start.values(), d_reset.values(), d_mask.values(), d_alpha.values()};
  }
  bool borders_intact() {
    bool good = scratch_f.intact() && scratch_b.intact();
    for (Guarded<Real>* x : {&xs, &w_ih, &w_hh, &b, &start, &reset_state, &mask, &alpha, &dhs, &d_last, &hs, &kept,
                             &last, &dw_ih, &dw_hh, &db, &dx, &d_start, &d_reset, &d_mask, &d_alpha})
      good &= x->intact();
    return good;
  }

 private:
  JrnnSizes s;
  const JrnnReal& real;
  Guarded<Real> xs, w_ih, w_hh, b, start, reset_state, mask, alpha, dhs, d_last;
  Guarded<int32_t> ids, lengths;
  Guarded<uint8_t> resets;
  Guarded<Real> hs, kept, last, dw_ih, dw_hh, db, dx, d_start, d_reset, d_mask, d_alpha;
  Guarded<char> scratch_f, scratch_b;
  JrnnInputs given{};
  double clip;
};

}  // namespace test
