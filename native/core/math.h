// phi and phi', elementwise.
//
//     tanh(x)    = (e^2|x| - 1) / (e^2|x| + 1), with the sign of x
//     sigmoid(x) = 1 / (1 + e^-x)
//
// At most 3 units in the last place from the true value, which test/ proves for every float. NaN
// gives NaN, -0 gives -0 (tanh), and a sigmoid below the smallest normal number is 0, as in XLA.
// (sigmoid(x) = (1 + tanh(x/2)) / 2 would be off by 1.7e7 units at x = -30.)
#pragma once

#include "core.h"
#include "vector.h"

namespace {

template <class Real>
struct Exp;
template <>
struct Exp<float> {
  static constexpr float round = 12582912.f;  // 1.5 * 2^23: x + round has round(x) in its low bits
  static constexpr int shift = 23;
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682030941723e-6f;
  static constexpr int degree = 7;
  static constexpr float tanh_is_1 = 9.02f, sigmoid_is_1 = 30.f, sigmoid_is_0 = -87.33654f;
};
template <>
struct Exp<double> {
  static constexpr double round = 6755399441055744.;
  static constexpr int shift = 52;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
  static constexpr int degree = 13;
  static constexpr double tanh_is_1 = 19.1, sigmoid_is_1 = 40, sigmoid_is_0 = -708.39;
};

constexpr double factorial(int n) { return n < 2 ? 1 : n * factorial(n - 1); }

// e^x = power + power * rest: the rest is e^f - 1 of |f| <= ln(2)/2, by its Taylor series.
template <class Real>
struct ExpParts {
  Vector<Real> power, rest;
};
template <class Real>
INLINE ExpParts<Real> exp_parts(Vector<Real> x) {
  using E = Exp<Real>;
  const Vector<Real> shifted = x * Real(1.4426950408889634074) + E::round;
  const Vector<Real> n = shifted - E::round;
  const Vector<Real> f = (x - n * E::ln2_high) - n * E::ln2_low;
  Vector<Real> p = broadcast<Real>(Real(1 / factorial(E::degree)));
#pragma GCC unroll 16
  for (int k = E::degree - 1; k >= 2; --k) p = p * f + Real(1 / factorial(k));
  const Bits<Real> one = (Bits<Real>)broadcast<Real>(1);
  return {(Vector<Real>)(((Bits<Real>)shifted << E::shift) + one), p * f * f + f};
}

// e^x of x <= 0; below the smallest normal number 0.
template <class Real>
INLINE Vector<Real> exp_of(Vector<Real> x) {
  const Vector<Real> low = broadcast(Exp<Real>::sigmoid_is_0);
  const ExpParts<Real> e = exp_parts<Real>(x < low ? low : x);
  return x < low ? Vector<Real>{} : e.power * e.rest + e.power;
}

template <class Real>
INLINE Vector<Real> tanh_of(Vector<Real> x) {
  const Bits<Real> sign = (Bits<Real>)broadcast<Real>(Real(-0.0));
  Vector<Real> y = (Vector<Real>)((Bits<Real>)x & ~sign);
  const Vector<Real> limit = broadcast(Exp<Real>::tanh_is_1);
  y = y > limit ? limit : y;  // NaN stays
  const ExpParts<Real> e = exp_parts<Real>(y + y);
  const Vector<Real> less_one = e.power * e.rest + (e.power - 1);
  const Vector<Real> h = less_one / (less_one + 2);
  return (Vector<Real>)((Bits<Real>)h | ((Bits<Real>)x & sign));
}

template <class Real>
INLINE Vector<Real> sigmoid_of(Vector<Real> x) {
  const Vector<Real> high = broadcast(Exp<Real>::sigmoid_is_1);
  const Vector<Real> low = broadcast(Exp<Real>::sigmoid_is_0);
  Vector<Real> y = x > high ? high : x;
  y = y < low ? low : y;
  const ExpParts<Real> e = exp_parts<Real>(-y);
  const Vector<Real> h = 1 / (1 + (e.power * e.rest + e.power));
  return x < low ? Vector<Real>{} : h;
}

// phi of n vectors, in their place. Not in line: one copy of it serves all cells.
template <class Real>
__attribute__((noinline)) void apply_phi(int32_t phi, Real* a, int64_t n) {
  auto apply = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < n; ++i) store<Real>(a + i * W<Real>, f(load<Real>(a + i * W<Real>)));
  };
  if (phi == JRNN_TANH) apply([](Vector<Real> x) { return tanh_of<Real>(x); });
  if (phi == JRNN_SIGMOID) apply([](Vector<Real> x) { return sigmoid_of<Real>(x); });
  if (phi == JRNN_RELU) apply([](Vector<Real> x) { return x <= 0 ? Vector<Real>{} : x; });  // NaN stays
}
template <class Real>
INLINE Vector<Real> phi_of(int32_t phi, Vector<Real> a) {
  apply_phi<Real>(phi, (Real*)&a, 1);
  return a;
}

// phi' as a function of h = phi(a).
template <class Real>
INLINE Vector<Real> phi_derivative(int32_t phi, Vector<Real> h) {
  const Vector<Real> one = broadcast<Real>(1);
  if (phi == JRNN_TANH) return one - RIGHT_OR_FAULT(h * h, 1, h);
  if (phi == JRNN_SIGMOID) return h * (one - h);
  if (phi == JRNN_RELU) return h > 0 ? one : Vector<Real>{};
  return one;
}

}  // namespace
