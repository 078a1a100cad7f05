// Tests of the core: see `usage`.
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "calls.h"
#include "programs.h"

namespace test {
namespace {

std::mutex printing;
std::atomic<int> failures{0};
std::atomic<int64_t> at_the_kink{0}, decided{0};

bool has(const JrnnReal& real) { return real.phi != nullptr; }

void fail(const std::string& what) {
  std::lock_guard<std::mutex> lock(printing);
  if (failures++ < 10) fprintf(stderr, "FAILED %s\n", what.c_str());
}

void fail_if(const std::string& what) {
  if (!what.empty()) fail(what);
}

template <class Real, class F>
void for_leaves(Results<Real>& r, F f) {
  f("hs", r.hs), f("kept", r.kept), f("last", r.last), f("last_c", r.last_c), f("dw_ih", r.dw_ih);
  for (Array<Real>& gate : r.gates) f("gate", gate);
  f("dw_hh", r.dw_hh), f("db", r.db), f("dx", r.dx), f("d_start", r.d_start), f("d_start_c", r.d_start_c);
  f("d_reset", r.d_reset), f("d_reset_c", r.d_reset_c), f("d_mask", r.d_mask), f("d_alpha", r.d_alpha);
}
template <class Real>
Array<Array<Real>> leaves(Results<Real> r) {
  Array<Array<Real>> all;
  for_leaves(r, [&](const char*, Array<Real>& x) { all.push_back(x); });
  return all;
}

template <class Real>
double largest(const Array<Real>& x) {
  double most = 0;
  for (Real value : x) most = std::max(most, std::fabs(double(value)));
  return most;
}

// In double: 1e-10 of the largest number of a leaf; 1e-13 where all of a leaf cancels.
class DoubleBounds {
 public:
  double of(const char*, int, const Array<double>& expected, double) {
    return largest(expected) ? 1e-10 * largest(expected) + 1e-13 : 0;
  }
};

// In float: 6 times the largest error of nine plain loops in float, one as given, eight with every
// number moved by -1, 0 or 1 units in the last place; and 4 eps of the largest number. Most leaves
// need the first loop alone. Clipped deltas, and those of bfloat16, do not move with the numbers, so
// their sums, dw_ih, dw_hh, db, have 4 eps of the largest sum on the way, too; others clip * sqrt(TB).
//
// With operands of bfloat16 the same, by loops that round them, if errors of float decide the way of no
// number that is rounded. Otherwise the numbers are moved by half a unit of bfloat16, and eps is its.
// Numbers below 2^-126, parts of numbers as well, count as 0: 64 of them may be lost.
class FloatBounds {
 public:
  FloatBounds(const Inputs<float>& inputs, bool rounds_operands, const Naive<double>& exact)
      : in(inputs), rounds(rounds_operands), undecided(exact.undecided > 0), largest_sum(exact.largest_sum) {}
  double of(const char* name, int leaf, const Array<double>& expected, double found) {
    const bool is_sum = name[1] == 'w' || name[1] == 'b';
    if (!largest(expected) && !is_sum) return 0;
    const double terms = is_sum ? largest_sum : in.clip * std::sqrt(in.sizes.T * in.sizes.B);
    double worst = 0, bound = 0;
    for (int i = 0; i < 9; ++i) {
      if (i >= int(loops.size())) loops.push_back(leaves(Naive<float>(i ? moved(in, i, undecided) : in, rounds).run()));
      worst = std::max(worst, error(loops[i][leaf], expected));
      bound = 6 * worst + 4 * (undecided ? 1 / 128. : 1.2e-7) * std::max(largest(expected), terms) + FLUSHED;
      if (found <= bound) break;
    }
    return bound;
  }

 private:
  static constexpr double FLUSHED = 0x1p-120;
  const Inputs<float>& in;
  const bool rounds, undecided;
  const double largest_sum;
  Array<Array<Array<float>>> loops;
};

template <class Real, class Bounds>
void compare(const std::string& name, const Inputs<float>& in, Results<double> expected, Results<Real> found,
             Bounds bounds) {
  Array<Array<double>> all = leaves(expected);
  int leaf = 0;
  for_leaves(found, [&](const char* of, Array<Real>& x) {
    const Array<double>& wanted = all[leaf];
    if (!x.empty()) {
      const double e = error(x, wanted), bound = bounds.of(of, leaf, wanted, e);
      if (!(e <= bound) || std::isinf(bound)) {
        char text[200];
        snprintf(text, sizeof text, "%s: error %.3g, bound %.3g, largest %.3g, ", of, e, bound, largest(wanted));
        fail(text + std::string(sizeof(Real) == 4 ? "float, " : "double, ") + name);
      }
    }
    ++leaf;
  });
  // What is 0 by definition is 0 to the bit.
  const int64_t H = in.sizes.H, B = in.sizes.B;
  for (int64_t i = 0; i < in.sizes.T * B * H; ++i)
    if (!in.inside(i / H / B, i / H % B) && found.hs[i] != 0) return fail("hs in the padding, " + name);
}

template <class Stored>
Results<Computed<Stored>> call_core(const JrnnCore& core, const std::string& name, Inputs<Computed<Stored>> in,
                                    uint64_t asked, int threads) {
  spoil_padding(in);
  Call<Stored> call(core, in, asked);
  call.run(threads);
  if (!call.borders_intact()) fail("a border was written, " + name);
  return call.results();
}

template <class Real>
void same_bits(const std::string& name, const Results<Real>& a, const Results<Real>& b) {
  const Array<Array<Real>> one = leaves(a), other = leaves(b);
  for (size_t i = 0; i < one.size(); ++i)
    if (!one[i].empty() && memcmp(one[i].data(), other[i].data(), one[i].size() * sizeof(Real)))
      return fail("other bits on other threads, " + name);
}

template <class Stored>
void check_on_threads(const JrnnCore& core, const std::string& name, const Inputs<float>& in, uint64_t asked,
                      const Results<float>& found) {
  for (int threads : {2, 16}) same_bits(name, found, call_core<Stored>(core, name, in, asked, threads));
}

void check_case(const JrnnCore& core, uint64_t number, bool rounds) {
  const Inputs<float> in = random_case(number, rounds);
  const std::string name = described(number, in);
  const uint64_t asked = number % 3 ? ~0ull : Random(number + 1).below(1024);
  const Inputs<double> exact = converted<double>(in);
  Naive<double> naive(exact, rounds);
  const Results<double> expected = naive.run();
  const double kink = in.sizes.phi == JRNN_RELU && in.sizes.cell < JRNN_LSTM ? naive.nearest_to_kink : INFINITY;
  if (kink < (rounds ? 1e-2 : 1e-11)) { ++at_the_kink; return; }
  if (!rounds && has(core.f64))
    compare(name, in, expected, call_core<double>(core, name, exact, asked, 1), DoubleBounds());
  if (kink < 1e-5) { ++at_the_kink; return; }
  const Results<float> found =
      rounds ? call_core<Half>(core, name, in, asked, 1) : call_core<float>(core, name, in, asked, 1);
  compare(name, in, expected, found, FloatBounds(in, rounds, naive));
  decided += !naive.undecided;
  if (number % 64) return;
  if (rounds) check_on_threads<Half>(core, name, in, asked, found);
  else check_on_threads<float>(core, name, in, asked, found);
}

void check_case(const JrnnCore& core, uint64_t number) {
  if (has(core.bf16)) check_case(core, number, true);
  if (!has(core.f32)) return;
  check_case(core, number, false);
  fail_if(number % 4 ? "" : check_loss(core, number));
}

// The steps in which two threads of one sequence meet: to start a thread takes 50 us, and a step 0.4.
#if defined(__SANITIZE_THREAD__)
constexpr int64_t STEPS_TO_MEET = 150;  // a hundred times slower
#else
constexpr int64_t STEPS_TO_MEET = 1500;
#endif

// slices fix the bits, whatever the threads; also of sizes at which they are busy at the same time.
template <class Stored>
void check_threads(const JrnnCore& core) {
  for (int32_t slices : {1, 2, 16})
    for (int64_t B : {1, 32}) {
      Random random(7);
      Inputs<float> in;
      const int64_t T = B == 1 ? STEPS_TO_MEET : 40;
      in.sizes = {T, B, 24, 96, slices, JRNN_ELMAN, JRNN_TANH, JRNN_VECTORS, JRNN_WANT_DX};
      in.xs = random.numbers(T * B * 24, 1), in.w_ih = random.numbers(24 * 96, 0.2f);
      in.w_hh = random.numbers(96 * 96, 0.1f), in.dhs = random.numbers(T * B * 96, 1);
      const std::string name = "threads, slices " + std::to_string(slices) + ", B " + std::to_string(B);
      const Results<float> one = call_core<Stored>(core, name, in, ~0ull, 1);
      for (int i = 0; i < 10; ++i) check_on_threads<Stored>(core, name, in, ~0ull, one);
    }
}

// An infinite input, and weights that are whole numbers of bfloat16: what is infinite, and what is finite, is as by
// the definition.
void check_infinite(const JrnnCore& core) {
  for (int64_t H : {64, 72}) {
    Random random(5);
    Inputs<float> in;
    in.sizes = {3, 20, 40, H, 1, JRNN_ELMAN, JRNN_RELU, JRNN_VECTORS, JRNN_WANT_DX};
    auto positive = [&](int64_t n, float scale) {
      Array<float> x = random.numbers(n, scale);
      for (float& value : x) value = std::fabs(value);
      return x;
    };
    in.xs = positive(3 * 20 * 40, 1), in.xs[3 * 40 + 7] = INFINITY, in.xs[20 * 40] = 3.4e38f;
    in.w_ih.assign(40 * H, 0.125f), in.w_hh.assign(H * H, 0.25f), in.dhs = positive(3 * 20 * H, 1);
    Array<Array<double>> wanted = leaves(Naive<double>(converted<double>(in)).run());
    Array<Array<float>> found = leaves(call_core<float>(core, "infinite", in, ~0ull, 1));
    for (size_t leaf = 0; leaf < found.size(); ++leaf)
      for (size_t i = 0; i < found[leaf].size(); ++i) {
        const double expected = float(wanted[leaf][i]), value = found[leaf][i];
        const bool same = std::isfinite(expected) ? std::fabs(value - expected) <= 1e-4 * std::fabs(expected)
                                                  : expected == value || (std::isnan(expected) && std::isnan(value));
        if (same) continue;
        const std::string numbers = std::to_string(value) + ", not " + std::to_string(expected);
        return fail("infinite input, leaf " + std::to_string(leaf) + ": " + numbers);
      }
  }
}

// An id outside [0, I) makes its own sequence NaN from that step on, and adds to no gradient.
void check_ids(const JrnnCore& core) {
  for (int64_t I : {3, 5000}) {
    Random random(3);
    Inputs<double> in;
    in.sizes = {4, 5, I, 20, 2, JRNN_ELMAN, JRNN_IDENTITY, JRNN_IDS, 0};
    in.ids.assign(20, 1), in.ids[1 * 5 + 2] = int32_t(I), in.ids[2 * 5 + 4] = -1;
    const Array<float> w = random.numbers(I * 20, 1);
    in.w_ih.assign(w.begin(), w.end()), in.w_hh.assign(400, 0), in.dhs.assign(400, 1);
    Call<double> call(core, in, ~0ull);
    call.run(1);
    Results<double> found = call.results();
    for (int t = 0; t < 4; ++t)
      for (int b = 0; b < 5; ++b)
        if (std::isnan(found.hs[(t * 5 + b) * 20 + 3]) != ((b == 2 && t >= 1) || (b == 4 && t >= 2)))
          fail("ids out of range: hs at step " + std::to_string(t) + " of sequence " + std::to_string(b));
    for (int64_t i = 0; i < I; ++i)
      if (found.dw_ih[i * 20 + 3] != (i == 1 ? 18 : 0)) return fail("ids out of range: dw_ih " + std::to_string(i));
  }
}

void usage() {
  puts("test_core [--isa ISA] [--cases N] [--first N] [--threads N]   random cases; 10000\n"
       "    ISA: avx512, avx2, avx512bf16, avx512amx, avx2bf16, amxemulated\n"
       "test_core --case N        one of them\n"
       "test_core --all-floats    tanh and sigmoid of all 2^32 floats\n"
       "test_core --bench [ROUNDS] [--rows 1 2 ...] [--cell N]   speed beside a bare loop of FMAs; N: JrnnCell");
}

int report(const char* what, int64_t n) {
  printf("%s: %lld cases, %lld at the kink of relu, %lld to the precision of float, %d failures\n", what, (long long)n,
         (long long)at_the_kink.load(), (long long)decided.load(), failures.load());
  return failures ? 1 : 0;
}

int run(int argc, char** argv) {
  Options o;
  if (!o.parse(argc, argv)) { usage(); return 2; }
  const JrnnCore& core = *o.core;
  if (!o.can_run) { printf("%s: NOT TESTED, this processor lacks its instructions\n", core.isa); return 0; }
  flush_denormals();
  if (o.all_floats && has(core.bf16)) { usage(); return 2; }  // the functions are those of float
  if (o.all_floats) return all_floats(core, o.threads);
  if (o.bench) return bench(core, o);
  if (o.one >= 0) {
    printf("%s\n", described(o.one, random_case(o.one, has(core.bf16))).c_str());
    check_case(core, o.one);
    return report(core.isa, 1);
  }
  if (has(core.bf16)) check_threads<Half>(core);
  if (has(core.f32)) check_threads<float>(core), check_infinite(core), fail_if(check_special_losses(core));
  if (has(core.f64)) check_ids(core), check_phi(core, [](const std::string& what) { fail(what); });
  parallel(o.threads, int(o.cases), [&](int i) { if (failures < 10) check_case(core, o.first + i); });
  return report(core.isa, o.cases);
}

}  // namespace
}  // namespace test

int main(int argc, char** argv) { return test::run(argc, argv); }
