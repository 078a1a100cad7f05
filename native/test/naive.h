// The definition: both passes as plain loops over one sequence after the other, (1)-(17), (23)-(29).
// Nothing here is shared with the core.
#pragma once

#include <cfloat>
#include <cmath>
#include <vector>

#include "core.h"

namespace test {

template <class Real>
using Array = std::vector<Real>;

// The arrays of a call; an empty one is a null pointer. Of an LSTM the names without _c are those of h.
template <class Real>
struct Inputs {
  JrnnSizes sizes;
  Array<Real> xs, w_ih, w_hh, b, start, start_c, reset_state, reset_state_c, mask, alpha, dhs, d_last, d_last_c;
  Array<int32_t> ids, lengths;
  Array<uint8_t> resets;
  double clip = -1;

  int64_t length(int64_t row) const {
    if (lengths.empty()) return sizes.T;
    return std::min<int64_t>(std::max(lengths[row], 0), sizes.T);
  }
  bool inside(int64_t t, int64_t row) const { return t < length(row); }
  bool anew(int64_t t, int64_t row) const {
    return !resets.empty() && resets[t * sizes.B + row] && inside(t, row);
  }
};

template <class Real>
struct Results {
  Array<Real> hs, kept, gates[JRNN_GATES], last, last_c, dw_ih, dw_hh, db, dx, d_start, d_start_c, d_reset, d_reset_c,
      d_mask, d_alpha;
};

// The blocks of a pre-activation; those that x feeds are the first.
inline int blocks_of(const JrnnSizes& s) { return s.cell == JRNN_LSTM || s.cell == JRNN_GRU ? 4 : 1; }
inline int fed_of(const JrnnSizes& s) { return s.cell == JRNN_GRU ? 3 : blocks_of(s); }
inline int gates_of(const JrnnSizes& s) { return s.cell == JRNN_LEAKY_STATE ? 1 : blocks_of(s) - (blocks_of(s) == 1); }
inline bool keeps(const JrnnSizes& s, bool rounds) {
  return rounds ? s.cell != JRNN_ELMAN : s.cell == JRNN_LEAKY_INPUT || s.cell == JRNN_LSTM;
}
inline bool leaks(const JrnnSizes& s) { return s.cell == JRNN_LEAKY_INPUT || s.cell == JRNN_LEAKY_STATE; }

template <class Real>
Real phi(int which, Real a) {
  switch (which) {
    case JRNN_TANH: return std::tanh(a);
    case JRNN_RELU: return a > 0 ? a : 0;
    case JRNN_SIGMOID: return 1 / (1 + std::exp(-a));
    default: return a;
  }
}
template <class Real>
Real phi_derivative(int which, Real h) {
  switch (which) {
    case JRNN_TANH: return 1 - h * h;
    case JRNN_RELU: return h > 0;
    case JRNN_SIGMOID: return h * (1 - h);
    default: return 1;
  }
}

template <class Real>
class Naive {
 public:
  // rounds: operands of matmuls, and hs, to bfloat16.
  explicit Naive(const Inputs<Real>& inputs, bool rounds_operands = false)
      : in(inputs), T(in.sizes.T), B(in.sizes.B), I(in.sizes.I), H(in.sizes.H), G(blocks_of(in.sizes)),
        X(fed_of(in.sizes)), cell(in.sizes.cell), which(in.sizes.phi), rounds(rounds_operands),
        xs(all_given(in.xs)), w_ih(all_given(in.w_ih)), w_hh(all_given(in.w_hh)) {}

  Results<Real> run() {
    out.hs.assign(T * B * H, 0), out.kept = out.hs, out.last.assign(B * H, 0);
    for (Array<Real>& gate : out.gates) gate = out.hs;
    out.dw_ih.assign(I * X * H, 0), out.dw_hh.assign(H * X * H, 0), out.db.assign(G * H, 0);
    out.dx.assign(T * B * columns(), 0);
    out.last_c = out.d_start = out.d_start_c = out.d_reset = out.d_reset_c = out.d_mask = out.d_alpha = out.last;
    entering.assign(T * H, 0), entering_c = after_c = entering, a_of.assign(T * G * H, 0);
    for (int64_t b = 0; b < B; ++b) forward(b), backward(b);
    return out;
  }
  // The smallest |a_t|: relu is not differentiable at 0.
  double nearest_to_kink = INFINITY;
  // The numbers that were rounded so near to the middle of two that errors of float decide the way.
  int64_t undecided = 0;
  // The largest sum on the way to dw_ih, dw_hh, db: of terms that cancel, what is left has its rounding.
  double largest_sum = 0;

 private:
  const Inputs<Real>& in;
  const int64_t T, B, I, H;
  const int G, X, cell, which;
  const bool rounds;
  const Array<Real> xs, w_ih, w_hh;  // as matmuls read them
  double largest_rounded = 1;
  Results<Real> out;
  Array<Real> entering, entering_c, after_c, a_of;  // [T, H] e_{t-1}, c_t and [T, G, H] a_t of one sequence

  int64_t columns() const { return in.sizes.input == JRNN_ADDED ? X * H : I; }
  // The block that column block n of w_hh feeds.
  int of_h(int n) const { return cell == JRNN_GRU && n == 2 ? 3 : n; }
  static Real or_else(const Array<Real>& x, int64_t i, Real other) { return x.empty() ? other : x[i]; }
  static Real sigmoid(Real a) { return phi<Real>(JRNN_SIGMOID, a); }
  Real m(int64_t b, int64_t k) const { return or_else(in.mask, b * H + k, 1); }

  // The nearest number of 8 bits, ties to even; of a number that is given, and of one that was computed.
  // What is denormal in float is 0.
  Real given(Real x) const {
    if (!rounds) return x;
    if (std::fabs(double(x)) < FLT_MIN) return 0;
    int exponent;
    std::frexp(double(x), &exponent);
    const double unit = std::ldexp(1, exponent - 8);
    return Real(std::nearbyint(x / unit) * unit);
  }
  Array<Real> all_given(Array<Real> all) const {
    for (Real& x : all) x = given(x);
    return all;
  }
  Real rounded(Real x) {
    const Real near = given(x);
    if (!rounds) return x;
    largest_rounded = std::max(largest_rounded, std::fabs(double(x)));
    int exponent;
    std::frexp(double(x), &exponent);
    const double half = std::ldexp(0.5, exponent - 8);
    undecided += std::fabs(std::fabs(double(x) - near) - half) < largest_rounded / (1 << 20);
    return near;
  }
  // The output of a state that enters, as the matmul reads it, and as the backward pass does beside it.
  Real operand(int64_t b, int64_t k, Real e) {
    const Real h = rounded(output(e));
    return in.mask.empty() ? h : given(given(m(b, k)) * h);
  }
  Real output_entering(int64_t t, int64_t k) {
    const Real h = output(entering[t * H + k]);
    return cell == JRNN_ELMAN || cell == JRNN_LSTM ? rounded(h) : h;
  }
  Real alpha(int64_t b, int64_t j) const { return in.alpha[b * H + j]; }
  Real output(Real s) const { return cell == JRNN_LEAKY_INPUT ? phi(which, s) : s; }

  void pre_activation(int64_t t, int64_t b, const Real* e, Real* a) {  // (23)
    for (int64_t j = 0; j < G * H; ++j) a[j] = or_else(in.b, j, 0);
    for (int64_t j = 0; j < X * H; ++j) {
      if (in.sizes.input == JRNN_ADDED) a[j] += in.xs[(t * B + b) * X * H + j];
      else if (in.sizes.input == JRNN_IDS) a[j] += in.w_ih[in.ids[t * B + b] * X * H + j];
      else
        for (int64_t i = 0; i < I; ++i) a[j] += xs[(t * B + b) * I + i] * w_ih[i * X * H + j];
    }
    for (int64_t k = 0; k < H; ++k) {
      const Real h = operand(b, k, e[k]);
      for (int n = 0; n < X; ++n)
        for (int64_t j = 0; j < H; ++j) a[of_h(n) * H + j] += h * w_hh[(k * X + n) * H + j];
    }
  }

  void forward(int64_t b) {  // (1), (2), (15), (24), (26), (28), (29)
    Array<Real> s(H), c(H);
    for (int64_t j = 0; j < H; ++j) s[j] = or_else(in.start, b * H + j, 0), c[j] = or_else(in.start_c, b * H + j, 0);
    for (int64_t t = 0; t < T; ++t) {
      Real *e = &entering[t * H], *e_c = &entering_c[t * H], *a = &a_of[t * G * H];
      for (int64_t j = 0; j < H; ++j) {
        const int64_t at = b * H + j;
        e[j] = in.anew(t, b) ? or_else(in.reset_state, at, 0) : s[j];
        e_c[j] = in.anew(t, b) ? or_else(in.reset_state_c, at, 0) : c[j];
      }
      if (in.inside(t, b)) pre_activation(t, b, e, a);
      for (int64_t j = 0; j < H; ++j) {
        const int64_t at = (t * B + b) * H + j;
        if (in.inside(t, b)) step(b, j, at, a, e[j], e_c[j], s[j], c[j]), out.hs[at] = rounded(output(s[j]));
        out.kept[at] = cell == JRNN_LSTM ? c[j] : s[j];
        after_c[t * H + j] = c[j];
      }
    }
    for (int64_t j = 0; j < H; ++j) out.last[b * H + j] = s[j], out.last_c[b * H + j] = c[j];
  }

  void step(int64_t b, int64_t j, int64_t at, const Real* a, Real e, Real e_c, Real& s, Real& c) {
    Real gate[4] = {a[j]};
    if (cell == JRNN_ELMAN) s = phi(which, a[j]);
    if (cell == JRNN_LEAKY_INPUT) s = (1 - alpha(b, j)) * e + alpha(b, j) * a[j];
    if (cell == JRNN_LEAKY_STATE) gate[0] = phi(which, a[j]), s = (1 - alpha(b, j)) * e + alpha(b, j) * gate[0];
    if (cell == JRNN_LSTM) {
      for (int g = 0; g < 4; ++g) gate[g] = g == 2 ? std::tanh(a[2 * H + j]) : sigmoid(a[g * H + j]);
      c = gate[1] * e_c + gate[0] * gate[2], s = gate[3] * std::tanh(c);
    }
    if (cell == JRNN_GRU) {
      gate[0] = sigmoid(a[j]), gate[1] = sigmoid(a[H + j]), gate[3] = a[3 * H + j];
      gate[2] = std::tanh(a[2 * H + j] + gate[0] * gate[3]);
      s = gate[2] + gate[1] * (e - gate[2]);
    }
    for (int g = 0; g < 4; ++g) out.gates[g][at] = gate[g];
    nearest_to_kink = std::min<double>(nearest_to_kink, std::fabs(cell == JRNN_LEAKY_INPUT ? s : a[j]));
  }

  void backward(int64_t b) {  // (9)-(13), (16), (17)
    Array<Real> d(H), d_c(H), delta(G * H), beside(H);
    for (int64_t j = 0; j < H; ++j) d[j] = or_else(in.d_last, b * H + j, 0), d_c[j] = or_else(in.d_last_c, b * H + j, 0);
    for (int64_t t = T - 1; t >= 0; --t) {
      if (!in.inside(t, b)) continue;
      for (int64_t j = 0; j < H; ++j) adjoint(t, b, j, d[j], d_c[j], delta, beside[j]);
      to_weights(t, b, delta);
      for (int64_t k = 0; k < H; ++k) {
        Real product = 0;
        for (int n = 0; n < X; ++n)
          for (int64_t j = 0; j < H; ++j) product += delta[of_h(n) * H + j] * w_hh[(k * X + n) * H + j];
        const Real h_e = output_entering(t, k);
        out.d_mask[b * H + k] += product * h_e;
        product *= m(b, k);
        if (cell == JRNN_LEAKY_INPUT) product *= phi_derivative(which, h_e);
        d[k] = product + (cell == JRNN_LSTM ? 0 : beside[k]), d_c[k] = cell == JRNN_LSTM ? beside[k] : 0;
        if (!in.anew(t, b)) continue;
        out.d_reset[b * H + k] += d[k], out.d_reset_c[b * H + k] += d_c[k];
        d[k] = d_c[k] = 0;
      }
    }
    for (int64_t j = 0; j < H; ++j) out.d_start[b * H + j] = d[j], out.d_start_c[b * H + j] = d_c[j];
  }

  // The deltas of a unit, and what goes to the state that enters beside the matmul: (9), (25), (27)-(29).
  void adjoint(int64_t t, int64_t b, int64_t j, Real d, Real d_c, Array<Real>& delta, Real& beside) {
    const int64_t at = (t * B + b) * H + j;
    const Real dh = or_else(in.dhs, at, 0), e = entering[t * H + j], e_c = entering_c[t * H + j];
    Real gate[4], found[4] = {};
    for (int g = 0; g < 4; ++g) gate[g] = out.gates[g][at];
    if (cell == JRNN_ELMAN) found[0] = phi_derivative(which, out.hs[at]) * (d + dh);
    if (cell == JRNN_LEAKY_INPUT) {
      d += phi_derivative(which, output(out.kept[at])) * dh;
      found[0] = alpha(b, j) * d;
    } else d += dh;
    if (cell == JRNN_LEAKY_STATE) found[0] = alpha(b, j) * phi_derivative(which, gate[0]) * d;
    if (leaks(in.sizes)) beside = (1 - alpha(b, j)) * d, out.d_alpha[b * H + j] += (gate[0] - e) * d;
    if (cell == JRNN_LSTM) {
      const Real i = gate[0], f = gate[1], g = gate[2], o = gate[3], tanh_c = std::tanh(after_c[t * H + j]);
      const Real q = d_c + d * o * (1 - tanh_c * tanh_c);
      found[0] = q * g * i * (1 - i), found[1] = q * e_c * f * (1 - f);
      found[2] = q * i * (1 - g * g), found[3] = d * tanh_c * o * (1 - o);
      beside = q * f;
    }
    if (cell == JRNN_GRU) {
      const Real r = gate[0], z = gate[1], n = gate[2], u = gate[3];
      found[2] = d * (1 - z) * (1 - n * n);
      found[0] = found[2] * u * r * (1 - r), found[1] = d * (e - n) * z * (1 - z), found[3] = found[2] * r;
      beside = d * z;
    }
    for (int g = 0; g < G; ++g)
      delta[g * H + j] = rounded(in.clip >= 0 ? std::min(std::max(found[g], Real(-in.clip)), Real(in.clip)) : found[g]);
  }

  void add(Real& sum, Real term) {
    sum += term;
    largest_sum = std::max(largest_sum, std::fabs(double(sum)));
  }
  void to_weights(int64_t t, int64_t b, const Array<Real>& delta) {
    for (int64_t j = 0; j < G * H; ++j) add(out.db[j], delta[j]);
    for (int64_t k = 0; k < H; ++k) {
      const Real h = operand(b, k, entering[t * H + k]);
      for (int n = 0; n < X; ++n)
        for (int64_t j = 0; j < H; ++j) add(out.dw_hh[(k * X + n) * H + j], h * delta[of_h(n) * H + j]);
    }
    const int64_t row = t * B + b, width = X * H;
    if (in.sizes.input == JRNN_ADDED)
      for (int64_t j = 0; j < width; ++j) out.dx[row * width + j] = delta[j];
    else if (in.sizes.input == JRNN_IDS)
      for (int64_t j = 0; j < width; ++j) add(out.dw_ih[in.ids[row] * width + j], delta[j]);
    else
      for (int64_t i = 0; i < I; ++i)
        for (int64_t j = 0; j < width; ++j) {
          add(out.dw_ih[i * width + j], xs[row * I + i] * delta[j]);
          out.dx[row * I + i] += delta[j] * w_ih[i * width + j];
        }
  }
};

}  // namespace test
