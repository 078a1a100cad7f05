// The cells: one step and its adjoint, for W units of a sequence.
//
//     gates     what the step reads of a_t alone, in the place of a_t, for a whole tile
//     step      the state after the step, from the gates and the state e_{t-1} that enters
//     output    h of a state
//     adjoint   delta_t, the cotangent of a_t, and d, that of the state after the step; from c, what
//               arrives from later steps (16), and the cotangent of the output h
//     back      what goes to e_{t-1}: through the matmul, and beside it
#pragma once

#include "math.h"

namespace {

template <class Real>
struct Cotangents {
  Vector<Real> delta, d;
};

// h_t = phi(a_t)                                                                       (2)
// delta_t = phi'(h_t) * (dhs_t + c_t)                                                  (9)
template <class Real, int PHI>
struct Elman {
  using V = Vector<Real>;
  static constexpr bool LEAKY = false;  // LEAKY: the state is not the output, and is kept
  static INLINE void gates(Real* a, int64_t n) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < n; ++i) store<Real>(a + i * W<Real>, phi<Real, PHI>(load<Real>(a + i * W<Real>)));
  }
  static INLINE V step(V h, V, V) { return h; }
  static INLINE V output(V h) { return h; }
  static INLINE Cotangents<Real> adjoint(V c, V dh, V h, V) {
    const V d = c + dh;
    return {phi_derivative<Real, PHI>(h) * d, d};
  }
  static INLINE V back(V through, V, V, V) { return through; }
};

// v_t = (1 - alpha) * e_{t-1} + alpha * a_t,  h_t = phi(v_t)                           (29)
// dv_t = c_t + phi'(h_t) * dhs_t,  delta_t = alpha * dv_t
// to e_{t-1}: (1 - alpha) * dv_t + phi'(phi(e)) * m * (delta_t w_hh^T)
template <class Real, int PHI>
struct LeakyInput {
  using V = Vector<Real>;
  static constexpr bool LEAKY = true;
  static INLINE void gates(Real*, int64_t) {}
  static INLINE V step(V a, V e, V alpha) { return e + alpha * (a - e); }
  static INLINE V output(V v) { return phi<Real, PHI>(v); }
  static INLINE Cotangents<Real> adjoint(V c, V dh, V h, V alpha) {
    const V d = c + phi_derivative<Real, PHI>(h) * dh;
    return {RIGHT_OR_FAULT(alpha * d, 5, d), d};
  }
  static INLINE V back(V through, V d, V h_e, V alpha) {
    return (1 - alpha) * d + RIGHT_OR_FAULT((phi_derivative<Real, PHI>(h_e)), 6, broadcast<Real>(1)) * through;
  }
};

// f(the cell that the sizes name)
template <class Real, template <class, int> class Cell, class F>
void with_phi(int32_t phi, F f) {
  switch (phi) {
    case JRNN_TANH: return f(Cell<Real, JRNN_TANH>{});
    case JRNN_RELU: return f(Cell<Real, JRNN_RELU>{});
    case JRNN_SIGMOID: return f(Cell<Real, JRNN_SIGMOID>{});
    case JRNN_IDENTITY: return f(Cell<Real, JRNN_IDENTITY>{});
  }
}
template <class Real, class F>
void with_cell(const JrnnSizes& s, F f) {
  if (s.cell == JRNN_ELMAN) return with_phi<Real, Elman>(s.phi, f);
  with_phi<Real, LeakyInput>(s.phi, f);
}

}  // namespace
