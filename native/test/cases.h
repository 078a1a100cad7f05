// Random calls. A number makes the same case on every machine.
#pragma once

#include <random>
#include <string>

#include "naive.h"

namespace test {

class Random {
 public:
  explicit Random(uint64_t seed) : engine(seed * 0x9e3779b97f4a7c15ull + 1) {}
  uint64_t below(uint64_t n) { return engine() % n; }
  int64_t between(int64_t low, int64_t high) { return low + int64_t(below(high - low + 1)); }
  bool chance(int percent) { return below(100) < (uint64_t)percent; }
  float number(float scale) { return scale * (float(engine() >> 40) / float(1 << 23) - 1); }
  Array<float> numbers(int64_t n, float scale) {
    Array<float> x(n);
    for (float& value : x) value = number(scale);
    return x;
  }

 private:
  std::mt19937_64 engine;
};

// Sizes of which a loop can compute 10^6; some of them reach over a tile, a range of weights, a chunk of
// steps, or a group of rows.
inline JrnnSizes random_sizes(Random& random, bool small) {
  JrnnSizes s{};
  s.T = random.between(1, 9), s.B = random.between(1, 40);
  s.I = random.between(1, 20), s.H = random.between(1, 40);
  switch (random.below(40)) {
    case 0: s.H = 16 * random.between(1, 9), s.B = random.between(1, 20); break;
    case 1: s.T = random.between(100, 300), s.B = random.between(1, 5), s.H = random.between(1, 20); break;
    case 2: s.B = random.between(100, 300), s.T = random.between(1, 4), s.H = random.between(1, 20); break;
    case 3: s.I = 16 * random.between(1, 5); break;
    case 4: s.T = random.between(20, 40), s.B = random.between(5, 20), s.H = random.between(1, 16); break;
    case 5: s.T = random.between(1, 4), s.B = random.between(1, 2), s.H = random.between(128, 140); break;
    case 6:
      if (random.chance(15)) s.T = random.between(1, 2), s.B = random.between(7, 18), s.H = random.between(129, 144);
      break;
    case 7:
      s.T = random.chance(20) ? random.between(129, 300) : random.between(1, 40), s.B = 1;
      s.H = random.between(33, 100);
      break;
  }
  if (small) s.T = 1 + s.T % 3, s.B = 1 + s.B % 3, s.H = 1 + s.H % 8;
  s.slices = int32_t(random.chance(80) ? random.between(1, 4) : random.between(1, 50));
  s.cell = int32_t(random.below(JRNN_CELLS));
  s.phi = int32_t(random.below(4));
  s.input = random.chance(60) ? JRNN_VECTORS : random.chance(70) ? JRNN_IDS : JRNN_ADDED;
  if (s.input == JRNN_ADDED) s.I = 0;
  if (s.input != JRNN_IDS && random.chance(70)) s.wanted |= JRNN_WANT_DX;
  if (leaks(s) && random.chance(70)) s.wanted |= JRNN_WANT_DALPHA;
  return s;
}

inline void random_marks(Random& random, Inputs<float>& in) {
  const JrnnSizes& s = in.sizes;
  if (random.chance(40))
    for (int64_t b = 0; b < s.B; ++b) in.lengths.push_back(int32_t(random.between(0, s.T + (b == 0))));
  if (random.chance(40))
    for (int64_t i = 0; i < s.T * s.B; ++i) in.resets.push_back(random.chance(25));
  if (random.chance(70)) in.start = random.numbers(s.B * s.H, 1);
  if (random.chance(60)) in.reset_state = random.numbers(s.B * s.H, 1);
  if (s.cell == JRNN_LSTM && random.chance(70)) in.start_c = random.numbers(s.B * s.H, 1);
  if (s.cell == JRNN_LSTM && random.chance(60)) in.reset_state_c = random.numbers(s.B * s.H, 1);
  if (random.chance(30)) in.mask = random.numbers(s.B * s.H, 1.5);
  if (random.chance(25)) in.clip = random.chance(10) ? 0 : 0.3 * random.number(1) * random.number(1);
}

// For bfloat16 dhs is of it, and every other case is so small that few numbers are rounded.
inline Inputs<float> random_case(uint64_t number, bool rounds) {
  Random random(number);
  Inputs<float> in;
  const JrnnSizes s = in.sizes = random_sizes(random, rounds && number % 2);
  const float scale = 1.2f / std::sqrt(float(s.H));
  const int64_t fed = fed_of(s) * s.H;
  if (s.input == JRNN_VECTORS) in.xs = random.numbers(s.T * s.B * s.I, 1);
  if (s.input == JRNN_ADDED) in.xs = random.numbers(s.T * s.B * fed, 1);
  if (s.input == JRNN_IDS)
    for (int64_t i = 0; i < s.T * s.B; ++i) in.ids.push_back(int32_t(random.below(s.I)));
  if (s.input != JRNN_ADDED) in.w_ih = random.numbers(s.I * fed, s.input == JRNN_IDS ? 1.f : 1 / std::sqrt(float(s.I)));
  in.w_hh = random.numbers(s.H * fed, scale);
  if (random.chance(70)) in.b = random.numbers(blocks_of(s) * s.H, 0.5);
  if (leaks(s))
    for (float x : random.numbers(s.B * s.H, 0.5)) in.alpha.push_back(0.505f + 0.99f * x);
  if (random.chance(90)) in.dhs = random.numbers(s.T * s.B * s.H, 1);
  if (random.chance(60)) in.d_last = random.numbers(s.B * s.H, 1);
  if (s.cell == JRNN_LSTM && random.chance(60)) in.d_last_c = random.numbers(s.B * s.H, 1);
  for (float& x : in.dhs) x = rounds ? std::nearbyint(64 * x) / 64 : x;
  random_marks(random, in);
  return in;
}

// What the padding holds must not matter.
template <class Real>
void spoil_padding(Inputs<Real>& in) {
  const JrnnSizes& s = in.sizes;
  const int64_t columns = in.xs.size() / (s.T * s.B);
  for (int64_t t = 0; t < s.T; ++t)
    for (int64_t b = 0; b < s.B; ++b) {
      if (in.inside(t, b)) continue;
      const int64_t row = t * s.B + b;
      for (int64_t i = 0; i < columns; ++i) in.xs[row * columns + i] = NAN;
      for (int64_t j = 0; j < s.H && !in.dhs.empty(); ++j) in.dhs[row * s.H + j] = NAN;
      if (!in.ids.empty()) in.ids[row] = (t + b) % 2 ? INT32_MAX : -7;
    }
}

template <class Real>
Inputs<Real> converted(const Inputs<float>& from) {
  auto to = [](const Array<float>& x) { return Array<Real>(x.begin(), x.end()); };
  Inputs<Real> in;
  in.sizes = from.sizes, in.clip = from.clip;
  in.ids = from.ids, in.lengths = from.lengths, in.resets = from.resets;
  in.xs = to(from.xs), in.w_ih = to(from.w_ih), in.w_hh = to(from.w_hh), in.b = to(from.b);
  in.start = to(from.start), in.reset_state = to(from.reset_state), in.mask = to(from.mask);
  in.alpha = to(from.alpha), in.dhs = to(from.dhs), in.d_last = to(from.d_last);
  in.start_c = to(from.start_c), in.reset_state_c = to(from.reset_state_c), in.d_last_c = to(from.d_last_c);
  return in;
}

// Every number moved by -1, 0 or 1 units in the last place, or by half of one of bfloat16.
inline Inputs<float> moved(Inputs<float> in, uint64_t seed, bool far = false) {
  Random random(seed);
  for (Array<float>* x : {&in.xs, &in.w_ih, &in.w_hh, &in.b, &in.start, &in.reset_state, &in.mask, &in.alpha,
                          &in.dhs, &in.d_last, &in.start_c, &in.reset_state_c, &in.d_last_c})
    for (float& value : *x) {
      const uint64_t way = random.below(3);
      if (way && far) value *= way == 1 ? 1 + 1.f / 256 : 1 - 1.f / 256;
      else if (way) value = std::nextafterf(value, way == 1 ? INFINITY : -INFINITY);
    }
  return in;
}

inline std::string described(uint64_t number, const Inputs<float>& in) {
  const JrnnSizes& s = in.sizes;
  auto flag = [](bool on, const char* name) { return on ? std::string(" ") + name : std::string(); };
  static const char* const cells[] = {"elman", "leaky input", "leaky state", "lstm", "gru"};
  static const char* const phis[] = {"tanh", "relu", "sigmoid", "identity"};
  static const char* const inputs[] = {"vectors", "ids", "added"};
  return "case " + std::to_string(number) + ": T " + std::to_string(s.T) + " B " + std::to_string(s.B) + " I " +
         std::to_string(s.I) + " H " + std::to_string(s.H) + " slices " + std::to_string(s.slices) + " " +
         cells[s.cell] + " " + phis[s.phi] + " " + inputs[s.input] + flag(!in.lengths.empty(), "lengths") +
         flag(!in.resets.empty(), "resets") + flag(!in.start.empty(), "start") +
         flag(!in.reset_state.empty(), "reset_state") + flag(!in.mask.empty(), "mask") + flag(in.clip >= 0, "clip") +
         flag(s.wanted & JRNN_WANT_DX, "dx") + flag(s.wanted & JRNN_WANT_DALPHA, "dalpha");
}

}  // namespace test
