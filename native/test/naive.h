// The definition: both passes as plain loops over one sequence after the other, (1)-(17) and (29).
// Nothing here is shared with the core.
#pragma once

#include <cmath>
#include <vector>

#include "core.h"

namespace test {

template <class Real>
using Array = std::vector<Real>;

// The arrays of a call; an empty one is a null pointer.
template <class Real>
struct Inputs {
  JrnnSizes sizes;
  Array<Real> xs, w_ih, w_hh, b, start, reset_state, mask, alpha, dhs, d_last;
  Array<int32_t> ids, lengths;
  Array<uint8_t> resets;
  int64_t alpha_stride = 0;
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
  Array<Real> hs, kept, last, dw_ih, dw_hh, db, dx, d_start, d_reset, d_mask, d_alpha;
};

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
  explicit Naive(const Inputs<Real>& inputs)
      : in(inputs), T(in.sizes.T), B(in.sizes.B), I(in.sizes.I), H(in.sizes.H),
        leaky(in.sizes.cell == JRNN_LEAKY_INPUT), which(in.sizes.phi) {}

  Results<Real> run() {
    out.hs.assign(T * B * H, 0), out.kept = out.hs, out.last.assign(B * H, 0);
    out.dw_ih.assign(I * H, 0), out.dw_hh.assign(H * H, 0), out.db.assign(H, 0);
    out.dx.assign(T * B * columns(), 0);
    out.d_start = out.d_reset = out.d_mask = out.d_alpha = out.last;
    entering.assign(T * H, 0), a_of = entering;
    for (int64_t b = 0; b < B; ++b) forward(b), backward(b);
    return out;
  }
  // The smallest |a_t|: relu is not differentiable at 0.
  double nearest_to_kink = INFINITY;

 private:
  const Inputs<Real>& in;
  const int64_t T, B, I, H;
  const bool leaky;
  const int which;
  Results<Real> out;
  Array<Real> entering, a_of;  // [T, H] e_{t-1} and a_t of one sequence

  int64_t columns() const { return in.sizes.input == JRNN_ADDED ? H : I; }
  static Real or_else(const Array<Real>& x, int64_t i, Real other) { return x.empty() ? other : x[i]; }
  Real m(int64_t b, int64_t k) const { return or_else(in.mask, b * H + k, 1); }
  Real alpha(int64_t b, int64_t j) const { return in.alpha[b * in.alpha_stride + j]; }
  Real output(Real s) const { return leaky ? phi(which, s) : s; }

  void pre_activation(int64_t t, int64_t b, const Real* e, Real* a) {
    for (int64_t j = 0; j < H; ++j) a[j] = or_else(in.b, j, 0);
    if (in.sizes.input == JRNN_ADDED)
      for (int64_t j = 0; j < H; ++j) a[j] += in.xs[(t * B + b) * H + j];
    else if (in.sizes.input == JRNN_IDS)
      for (int64_t j = 0; j < H; ++j) a[j] += in.w_ih[in.ids[t * B + b] * H + j];
    else
      for (int64_t i = 0; i < I; ++i)
        for (int64_t j = 0; j < H; ++j) a[j] += in.xs[(t * B + b) * I + i] * in.w_ih[i * H + j];
    for (int64_t k = 0; k < H; ++k)
      for (int64_t j = 0; j < H; ++j) a[j] += m(b, k) * output(e[k]) * in.w_hh[k * H + j];
  }

  void forward(int64_t b) {  // (1), (2), (15), (29)
    Array<Real> s(H);
    for (int64_t j = 0; j < H; ++j) s[j] = or_else(in.start, b * H + j, 0);
    for (int64_t t = 0; t < T; ++t) {
      Real *e = &entering[t * H], *a = &a_of[t * H];
      for (int64_t j = 0; j < H; ++j) e[j] = in.anew(t, b) ? or_else(in.reset_state, b * H + j, 0) : s[j];
      if (in.inside(t, b)) pre_activation(t, b, e, a);
      for (int64_t j = 0; j < H; ++j) {
        const int64_t at = (t * B + b) * H + j;
        if (in.inside(t, b)) {
          s[j] = leaky ? (1 - alpha(b, j)) * e[j] + alpha(b, j) * a[j] : phi(which, a[j]);
          out.hs[at] = output(s[j]);
          nearest_to_kink = std::min<double>(nearest_to_kink, std::fabs(leaky ? s[j] : a[j]));
        }
        out.kept[at] = s[j];
      }
    }
    for (int64_t j = 0; j < H; ++j) out.last[b * H + j] = s[j];
  }

  void backward(int64_t b) {  // (9)-(13), (16), (17)
    Array<Real> c(H), delta(H), d(H);
    for (int64_t j = 0; j < H; ++j) c[j] = or_else(in.d_last, b * H + j, 0);
    for (int64_t t = T - 1; t >= 0; --t) {
      if (!in.inside(t, b)) continue;
      adjoint(t, b, c, delta, d);
      to_weights(t, b, delta);
      for (int64_t k = 0; k < H; ++k) {
        Real product = 0;
        for (int64_t j = 0; j < H; ++j) product += delta[j] * in.w_hh[k * H + j];
        const Real h_e = output(entering[t * H + k]);
        out.d_mask[b * H + k] += product * h_e;
        product *= m(b, k);
        if (leaky) product = (1 - alpha(b, k)) * d[k] + phi_derivative(which, h_e) * product;
        if (in.anew(t, b)) out.d_reset[b * H + k] += product;
        c[k] = in.anew(t, b) ? 0 : product;
      }
    }
    for (int64_t j = 0; j < H; ++j) out.d_start[b * H + j] = c[j];
  }

  void adjoint(int64_t t, int64_t b, const Array<Real>& c, Array<Real>& delta, Array<Real>& d) {
    for (int64_t j = 0; j < H; ++j) {
      const int64_t at = (t * B + b) * H + j;
      const Real slope = phi_derivative(which, out.hs[at]), dh = or_else(in.dhs, at, 0);
      d[j] = leaky ? c[j] + slope * dh : c[j] + dh;
      delta[j] = leaky ? alpha(b, j) * d[j] : slope * d[j];
      if (leaky) out.d_alpha[b * H + j] += (a_of[t * H + j] - entering[t * H + j]) * d[j];
      if (in.clip >= 0) delta[j] = std::min(std::max(delta[j], Real(-in.clip)), Real(in.clip));
    }
  }

  void to_weights(int64_t t, int64_t b, const Array<Real>& delta) {
    for (int64_t j = 0; j < H; ++j) out.db[j] += delta[j];
    for (int64_t k = 0; k < H; ++k) {
      const Real operand = m(b, k) * output(entering[t * H + k]);
      for (int64_t j = 0; j < H; ++j) out.dw_hh[k * H + j] += operand * delta[j];
    }
    const int64_t row = t * B + b;
    if (in.sizes.input == JRNN_ADDED)
      for (int64_t j = 0; j < H; ++j) out.dx[row * H + j] = delta[j];
    else if (in.sizes.input == JRNN_IDS)
      for (int64_t j = 0; j < H; ++j) out.dw_ih[in.ids[row] * H + j] += delta[j];
    else
      for (int64_t i = 0; i < I; ++i)
        for (int64_t j = 0; j < H; ++j) {
          out.dw_ih[i * H + j] += in.xs[row * I + i] * delta[j];
          out.dx[row * I + i] += delta[j] * in.w_ih[i * H + j];
        }
  }
};

}  // namespace test
