// Losses and their gradients against plain loops, with which they share no code.
#include <cmath>
#include <cstdio>

#include "calls.h"
#include "programs.h"

namespace test {
namespace {

template <class Real>
struct Given {
  JrnnLossSizes s;
  Array<Real> hs, w_ho, b_o, dlosses;
  Array<int32_t> labels;
};
template <class Real>
struct Found {
  Array<Real> losses, deltas, dhs, dw_ho, db_o;
};
constexpr const char* NAMES[] = {"losses", "deltas", "dhs", "dw_ho", "db_o"};

template <class Real>
Array<Array<Real>> leaves(const Found<Real>& f) { return {f.losses, f.deltas, f.dhs, f.dw_ho, f.db_o}; }

Given<float> random_given(Random& random) {
  Given<float> in;
  in.s = {random.between(1, 90), random.between(1, 40), random.between(1, 40), 1};
  if (random.chance(5)) in.s.N = random.between(100, 300);
  if (random.chance(5)) in.s.H = 16 * random.between(1, 9);
  if (random.chance(5)) in.s.O = random.between(40, 150);
  in.s.slices = int32_t(random.chance(80) ? random.between(1, 4) : random.between(1, 50));
  const float scale = random.chance(15) ? 300 : 2;  // of logits: e^300 would be infinite
  in.hs = random.numbers(in.s.N * in.s.H, 1), in.w_ho = random.numbers(in.s.H * in.s.O, scale / std::sqrt(float(in.s.H)));
  if (random.chance(70)) in.b_o = random.numbers(in.s.O, 1);
  in.dlosses = random.numbers(in.s.N, 1);
  for (int64_t n = 0; n < in.s.N; ++n) in.labels.push_back(int32_t(random.below(in.s.O)));
  return in;
}

template <class Real>
Given<Real> converted(const Given<float>& from) {
  auto to = [](const Array<float>& x) { return Array<Real>(x.begin(), x.end()); };
  return {from.s, to(from.hs), to(from.w_ho), to(from.b_o), to(from.dlosses), from.labels};
}

template <class Real>
Found<Real> by_loops(const Given<Real>& in) {
  const int64_t N = in.s.N, H = in.s.H, O = in.s.O;
  Found<Real> out{Array<Real>(N), Array<Real>(N * O), Array<Real>(N * H), Array<Real>(H * O), Array<Real>(O)};
  for (int64_t n = 0; n < N; ++n) {
    Array<Real> o(O);
    Real top = -INFINITY, sum = 0;
    for (int64_t k = 0; k < O; ++k) {
      o[k] = in.b_o.empty() ? 0 : in.b_o[k];
      for (int64_t j = 0; j < H; ++j) o[k] += in.hs[n * H + j] * in.w_ho[j * O + k];
      top = std::max(top, o[k]);
    }
    for (int64_t k = 0; k < O; ++k) sum += std::exp(o[k] - top);
    out.losses[n] = std::log(sum) + top - o[in.labels[n]];
    for (int64_t k = 0; k < O; ++k) {
      const Real delta = std::exp(o[k] - top) / sum - (k == in.labels[n]), d = in.dlosses[n] * delta;
      out.deltas[n * O + k] = delta, out.db_o[k] += d;
      for (int64_t j = 0; j < H; ++j) {
        out.dhs[n * H + j] += d * in.w_ho[j * O + k];
        out.dw_ho[j * O + k] += in.hs[n * H + j] * d;
      }
    }
  }
  return out;
}

// asked: whether deltas, dhs and db_o are.
template <class Real>
Found<Real> by_core(const JrnnCore& core, const Given<Real>& in, bool asked, int threads, bool* intact) {
  const JrnnLossSizes s = in.s;
  const JrnnReal& real = real_of(core, Real());
  Guarded<Real> hs(in.hs), w_ho(in.w_ho), b_o(in.b_o), dlosses(in.dlosses), losses(s.N), deltas(asked ? s.N * s.O : 0);
  Guarded<Real> given(asked ? int64_t(0) : s.N * s.O), dhs(asked ? s.N * s.H : 0), dw_ho(s.H * s.O);
  Guarded<Real> db_o(asked ? s.O : 0);
  Guarded<int32_t> labels(in.labels);
  Guarded<char> scratch(real.loss.scratch_bytes(&s)), more(real.loss_gradient.scratch_bytes(&s));
  const JrnnLoss loss = {s, hs.data(), w_ho.data(), b_o.or_null(), labels.data(), losses.data(), deltas.or_null(),
                         scratch.data()};
  run_pass(real.loss, loss, threads);
  if (!asked) {  // the gradient reads them all the same
    const Array<Real> exact = by_loops(in).deltas;
    memcpy(given.data(), exact.data(), exact.size() * sizeof(Real));
  }
  const JrnnLossGradient gradient = {s, hs.data(), w_ho.data(), asked ? deltas.data() : given.data(), dlosses.data(),
                                     dhs.or_null(), dw_ho.data(), db_o.or_null(), more.data()};
  run_pass(real.loss_gradient, gradient, threads);
  for (Guarded<Real>* x : {&hs, &w_ho, &b_o, &dlosses, &losses, &deltas, &given, &dhs, &dw_ho, &db_o}) *intact &= x->intact();
  *intact &= labels.intact() && scratch.intact() && more.intact();
  return {losses.values(), deltas.values(), dhs.values(), dw_ho.values(), db_o.values()};
}

// As given, and every number moved by -1, 0 or 1 units in the last place.
Given<float> moved(Given<float> in, uint64_t seed) {
  Random random(seed);
  for (Array<float>* x : {&in.hs, &in.w_ho, &in.b_o, &in.dlosses})
    for (float& value : *x) {
      const uint64_t way = seed ? random.below(3) : 0;
      if (way) value = std::nextafterf(value, way == 1 ? INFINITY : -INFINITY);
    }
  return in;
}

// In double 1e-10 of the largest number; in float 6 times the largest error of nine plain loops in float, one as given
// and eight with numbers that are moved, and 4 eps of the largest number, or of the largest loss, whose rounding
// deltas have. Most leaves need the first loop alone.
template <class Real>
std::string compared(const Given<float>& in, const Found<Real>& found, const Found<double>& exact) {
  const Array<Array<Real>> all = leaves(found);
  const Array<Array<double>> wanted = leaves(exact);
  Array<Array<Array<float>>> loops;
  for (size_t leaf = 0; leaf < all.size(); ++leaf) {
    double largest = leaf ? 0 : 1, worst = 0, bound = 0;  // a loss is the logarithm of a sum that is at least 1
    for (double x : wanted[leaf]) largest = std::max(largest, std::fabs(x));
    for (double x : wanted[0]) largest = std::max(largest, std::fabs(x));
    const double e = error(all[leaf], wanted[leaf]);
    if (sizeof(Real) == 8) bound = 1e-10 * largest;
    for (size_t i = 0; sizeof(Real) == 4 && i < 9 && !(e <= bound); ++i) {
      if (i == loops.size()) loops.push_back(leaves(by_loops(moved(in, i))));
      worst = std::max(worst, error(loops[i][leaf], wanted[leaf]));
      bound = 6 * worst + 4 * 1.2e-7 * largest;
    }
    if (!(e <= bound)) return std::string(NAMES[leaf]) + ": error " + std::to_string(e) + ", bound " + std::to_string(bound);
  }
  return "";
}

template <class Real>
std::string checked(const JrnnCore& core, const Given<float>& single, bool asked, bool on_threads) {
  const Given<Real> in = converted<Real>(single);
  bool intact = true;
  const Found<Real> found = by_core(core, in, asked, 1, &intact);
  for (int threads : {2, 16}) {
    if (!on_threads) break;
    const Array<Array<Real>> one = leaves(found), other = leaves(by_core(core, in, asked, threads, &intact));
    for (size_t i = 0; i < one.size(); ++i)
      if (!one[i].empty() && memcmp(one[i].data(), other[i].data(), one[i].size() * sizeof(Real)))
        return "other bits on other threads";
  }
  return intact ? compared(single, found, by_loops(converted<double>(single))) : "a border was written";
}

}  // namespace

std::string check_loss(const JrnnCore& core, uint64_t number) {
  Random random(number);
  const Given<float> in = random_given(random);
  const bool asked = !random.chance(20), on_threads = number % 256 == 0;
  std::string wrong = checked<float>(core, in, asked, on_threads);
  if (wrong.empty() && core.f64.phi) wrong = checked<double>(core, in, asked, on_threads);
  if (wrong.empty()) return "";
  return wrong + ", loss " + std::to_string(number) + ": N " + std::to_string(in.s.N) + " H " + std::to_string(in.s.H) +
         " O " + std::to_string(in.s.O) + " slices " + std::to_string(in.s.slices);
}

// A label that is no class, and a state that is not finite, make their own position NaN; a logit of -inf is a class
// of probability 0.
std::string check_special_losses(const JrnnCore& core) {
  Random random(1);
  Given<float> in = random_given(random);
  in.s = {70, 20, 19, 2};
  in.hs = random.numbers(70 * 20, 1), in.w_ho = random.numbers(20 * 19, 1), in.b_o = random.numbers(19, 1);
  in.dlosses = random.numbers(70, 1), in.labels.assign(70, 3);
  in.labels[5] = -1, in.labels[6] = 19, in.hs[7 * 20 + 2] = NAN, in.hs[8 * 20] = INFINITY, in.b_o[4] = -INFINITY;
  in.labels[9] = 4;
  bool intact = true;
  const Found<float> found = by_core(core, in, true, 1, &intact);
  for (int64_t n = 0; n < 70; ++n) {
    const bool wrong = n >= 5 && n <= 8;
    const std::string place = " of position " + std::to_string(n);
    if (n == 9 ? found.losses[n] != INFINITY : wrong != !std::isfinite(found.losses[n])) return "loss" + place;
    for (int64_t k = 0; k < 19; ++k) {
      const float delta = found.deltas[n * 19 + k];
      if (wrong != std::isnan(delta) || (!wrong && k == 4 && delta != (n == 9 ? -1 : 0))) return "delta" + place;
    }
  }
  return intact ? "" : "a border was written";
}

}  // namespace test
