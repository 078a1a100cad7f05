// The speed of both passes beside a bare loop of FMAs, on one or two threads, in turn.
//
// A share is what the FMAs of the equations alone would take, 2TBX(H^2 + IH) forward and 2TBX(3H^2 + 2IH)
// for the gradient (forward and backward), with X blocks, over the time. Minima of many rounds: other programs run.
#include <cmath>
#include <cstdio>
#include <ctime>

#include "calls.h"
#include "programs.h"

extern "C" {
double fma_avx512(int64_t n);
double fma_avx2(int64_t n);
double fma_avx512bf16(int64_t n);
double fma_avx512amx(int64_t n);
double fma_avx2bf16(int64_t n);
}

namespace test {
namespace {

double seconds(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// One thread or two. The second waits for work by spinning, as in a busy pool. They add up the processor
// time of the slowest thread of each phase: what the phase takes on a machine of its own.
class Pool {
 public:
  explicit Pool(int n) : threads(std::min(n, 2)) {
    flush_denormals();
    if (threads > 1) other = std::thread([this] { serve(); });
  }
  ~Pool() {
    stop = true;
    if (threads > 1) other.join();
  }
  void run(int n, const std::function<void(int)>& f) {
    if (!n) return;
    work = &f, tasks = n, next = 0, done = false;
    const bool both = n > 1 && threads > 1;
    if (both) ready = true;
    const double mine = take();
    while (both && !done) __builtin_ia32_pause();
    busy += std::max(mine, both ? others : 0);
  }
  double busy = 0;
  const int threads;

 private:
  const std::function<void(int)>* work = nullptr;
  int tasks = 0;
  double others = 0;
  std::atomic<int> next{0};
  std::atomic<bool> stop{false}, ready{false}, done{false};
  std::thread other;

  double take() {
    const double begin = seconds(CLOCK_THREAD_CPUTIME_ID);
    for (int i; (i = next.fetch_add(1)) < tasks;) (*work)(i);
    return seconds(CLOCK_THREAD_CPUTIME_ID) - begin;
  }
  void serve() {
    flush_denormals();
    while (!stop) {
      if (!ready.exchange(false)) { __builtin_ia32_pause(); continue; }
      others = take();
      done = true;
    }
  }
};

struct Time {
  double wall = INFINITY, busy = INFINITY;
  template <class F>
  void measure(Pool& pool, F f) {
    pool.busy = 0;
    const double begin = seconds(CLOCK_MONOTONIC);
    f();
    wall = std::min(wall, seconds(CLOCK_MONOTONIC) - begin);
    busy = std::min(busy, pool.busy);
  }
};

struct Row {
  int64_t T, B, I, H;
  int cell = JRNN_ELMAN;
  double forward_flops() const { return 2. * T * B * H * (H + I) * fed(); }
  double gradient_flops() const { return 2. * T * B * H * (3 * H + 2 * I) * fed(); }
  JrnnSizes sizes(int threads) const { return {T, B, I, H, threads, cell, JRNN_TANH, JRNN_VECTORS, 0}; }
  int64_t fed() const { return fed_of(sizes(1)); }
  int64_t blocks() const { return blocks_of(sizes(1)); }
  int64_t states() const { return T * B * H; }
};

// n elements on a line of the cache, as XLA's arrays are.
template <class T>
struct Aligned {
  Array<T> all;
  explicit Aligned(int64_t n) : all(n + 64 / sizeof(T)) {}
  explicit Aligned(const Array<T>& from) : Aligned(int64_t(from.size())) {
    std::copy(from.begin(), from.end(), data());
  }
  T* data() { return (T*)(((uintptr_t)all.data() + 63) / 64 * 64); }
};

// The arrays of a row, and both passes on the pool.
template <class Stored>
struct Program {
  const JrnnReal& real;
  Pool& pool;
  JrnnForward f{};
  JrnnBackward g{};
  Random random{1};
  Aligned<float> xs, w_ih, w_hh, b, kept, gates, dw_ih, dw_hh, db;
  Aligned<Stored> hs, dhs;
  Aligned<char> scratch_f, scratch_b;

  Program(const JrnnCore& which, Pool& threads, const Row& row)
      : real(real_of(which, Stored())), pool(threads), xs(random.numbers(row.T * row.B * row.I, 1)),
        w_ih(random.numbers(row.I * row.H * row.fed(), 1 / std::sqrt(float(row.I)))),
        w_hh(random.numbers(row.H * row.H * row.fed(), 1 / std::sqrt(float(row.H)))),
        b(random.numbers(row.H * row.blocks(), 1)), kept(row.states()), gates(row.states() * JRNN_GATES),
        dw_ih(row.I * row.H * row.fed()), dw_hh(row.H * row.H * row.fed()), db(row.H * row.blocks()), hs(row.states()),
        dhs(all_stored<Stored>(random.numbers(row.states(), 1))), scratch_f(real.forward.scratch_bytes(sizes(row))),
        scratch_b(real.backward.scratch_bytes(sizes(row))) {
    f.sizes = g.sizes = *sizes(row);
    f.in.xs = xs.data(), f.in.w_ih = w_ih.data(), f.in.w_hh = w_hh.data(), f.in.b = b.data(), g.in = f.in;
    f.hs = hs.data(), f.scratch = scratch_f.data(), g.hs = hs.data(), g.scratch = scratch_b.data();
    if (keeps(f.sizes, rounds<Stored>)) f.kept = kept.data(), g.kept = kept.data();
    for (int n = 0; n < gates_of(f.sizes); ++n) g.gates[n] = gates.data() + n * row.states();
    g.dhs = dhs.data(), g.clip_delta = -1, g.dw_ih = dw_ih.data(), g.dw_hh = dw_hh.data(), g.db = db.data();
  }
  const JrnnSizes* sizes(const Row& row) {
    f.sizes = row.sizes(pool.threads);
    return &f.sizes;
  }
  template <class Pass, class Call>
  void run(const Pass& pass, const Call& call) {
    for (int phase = 0, n; (n = pass.tasks(&call.sizes, phase)) >= 0; ++phase)
      pool.run(n, [&](int task) { pass.run(&call, phase, task); });
  }
  void forward(bool keep_gates) {
    for (int n = 0; n < JRNN_GATES; ++n) f.gates[n] = keep_gates ? (void*)g.gates[n] : nullptr;
    run(real.forward, f);
  }
  void backward() { run(real.backward, g); }
};

template <class Stored>
void bench_of(const JrnnCore& core, const Options& options, double (*fma)(int64_t)) {
  Row rows[] = {{128, 32, 64, 64}, {512, 32, 128, 256}, {784, 64, 1, 128},
                      {128, 64, 256, 512}, {1024, 1, 32, 128}, {64, 256, 512, 1024}};
  Pool pool(options.threads);
  printf("%s, %d threads. ms of wall time, share of the FMA loop; in brackets by processor time\n", core.isa,
         pool.threads);
  for (int i = 1; i <= 6; ++i) {
    const std::vector<int>& only = options.rows;
    if (!only.empty() && std::find(only.begin(), only.end(), i) == only.end()) continue;
    Row& row = rows[i - 1];
    row.cell = options.cell;
    Program<Stored> program(core, pool, row);
    Time peak, forward, gradient;
    const int64_t turns = 100000;
    double flops = 0;
    for (int round = 0; round < options.rounds; ++round) {
      peak.measure(pool, [&] { pool.run(pool.threads, [&](int) { flops = pool.threads * fma(turns); }); });
      forward.measure(pool, [&] { program.forward(false); });
      gradient.measure(pool, [&] { program.forward(true), program.backward(); });
    }
    const double wall = flops / peak.wall, busy = flops / peak.busy;
    auto share = [&](double of, const Time& t) {
      printf("  %8.3f %.2f (%.2f)", 1e3 * t.wall, of / t.wall / wall, of / t.busy / busy);
    };
    printf("%d: %4lld %3lld %3lld %4lld  FMA %5.0f (%5.0f) GFLOP/s  forward", i, (long long)row.T, (long long)row.B,
           (long long)row.I, (long long)row.H, 1e-9 * wall, 1e-9 * busy);
    share(row.forward_flops(), forward);
    printf("  gradient");
    share(row.gradient_flops(), gradient);
    printf("\n");
    fflush(stdout);
  }
}

}  // namespace

int bench(const JrnnCore& core, const Options& options) {
  const std::string isa = core.isa;
  if (isa == "avx512") bench_of<float>(core, options, fma_avx512);
  if (isa == "avx2") bench_of<float>(core, options, fma_avx2);
  if (isa == "avx512bf16") bench_of<Half>(core, options, fma_avx512bf16);
  if (isa == "avx512amx") bench_of<Half>(core, options, fma_avx512amx), bench_of<float>(core, options, fma_avx512);
  if (isa == "avx2bf16") bench_of<Half>(core, options, fma_avx2bf16);
  return 0;
}

}  // namespace test
