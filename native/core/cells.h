// The cells: one step and its adjoint, for W units of a sequence.
//
//     Of        the blocks of a_t, in the order of blocks.h
//     gates     what step and adjoint read of a_t alone, in the place of a_t, for a whole tile
//     step      the state after the step and the output h, from the gates and the state e_{t-1} that enters
//     output    h of a state, where a state has one
//     adjoint   delta_t, the cotangent of a_t, and what goes to e_{t-1} beside the matmul; from c, what
//               arrives from later steps (16), and the cotangent of the output h
//     back      what goes to e_{t-1} through the matmul
#pragma once

#include "gemm.h"
#include "math.h"

namespace {

// Where nothing else is said.
template <class Real>
struct AnyCell {
  int32_t phi;  // JrnnPhi, of Elman and leaky cells
  using Of = Alone;
  static constexpr int STATES = 1;       // an LSTM has another state, h
  static constexpr int GATES = 0;        // arrays that the adjoint reads
  static constexpr bool KEEPS = false;   // the state is not the output, and is kept
  static constexpr bool READS = true;    // the step reads the state that enters
  static constexpr bool LEAKS = false;   // it has alpha
  static constexpr bool READS_H = false;  // `back` reads the output of the state that enters
  INLINE void gates(Real*, int64_t) const {}
  INLINE Vector<Real> output(Vector<Real> state) const { return state; }
  INLINE Vector<Real> back(Vector<Real> through, Vector<Real>) const { return through; }
};

template <class Real>
struct After {
  Vector<Real> state, h;
};
// What the adjoint of a step reads.
template <class Real>
struct Stepped {
  Vector<Real> dh, dc;  // the cotangents of h, and of c in an LSTM, as they arrive; and of the output
  Vector<Real> d_output, h, before, after, alpha, gates[JRNN_GATES];
};
template <class Real, int BLOCKS>
struct Cotangents {
  Vector<Real> delta[BLOCKS], beside{}, d{}, pull{};  // d * pull: of alpha
};

// h_t = phi(a_t)                                                                       (2)
// delta_t = phi'(h_t) * (dhs_t + c_t)                                                  (9)
template <class Real>
struct Elman : AnyCell<Real> {
  using V = Vector<Real>;
  static constexpr bool READS = false;
  INLINE void gates(Real* a, int64_t n) const { apply_phi<Real>(this->phi, a, n); }
  INLINE After<Real> step(const V* a, V, V) const { return {a[0], a[0]}; }
  INLINE Cotangents<Real, 1> adjoint(const Stepped<Real>& s) const {
    return {{phi_derivative<Real>(this->phi, s.h) * (s.dh + s.d_output)}};
  }
};

// v_t = (1 - alpha) * e_{t-1} + alpha * a_t,  h_t = phi(v_t)                           (29)
// dv_t = c_t + phi'(h_t) * dhs_t,  delta_t = alpha * dv_t
// to e_{t-1}: (1 - alpha) * dv_t + phi'(phi(e)) * m * (delta_t w_hh^T)
template <class Real>
struct LeakyInput : AnyCell<Real> {
  using V = Vector<Real>;
  static constexpr bool KEEPS = true, LEAKS = true, READS_H = true;
  INLINE After<Real> step(const V* a, V e, V alpha) const {
    const V v = e + alpha * (a[0] - e);
    return {v, output(v)};
  }
  INLINE V output(V v) const { return phi_of<Real>(this->phi, v); }
  INLINE Cotangents<Real, 1> adjoint(const Stepped<Real>& s) const {
    const V d = s.dh + phi_derivative<Real>(this->phi, s.h) * s.d_output;
    return {{RIGHT_OR_FAULT(s.alpha * d, 5, d)}, (1 - s.alpha) * d, d};
  }
  INLINE V back(V through, V h_e) const {
    return RIGHT_OR_FAULT((phi_derivative<Real>(this->phi, h_e)), 6, broadcast<Real>(1)) * through;
  }
};

// h_t = (1 - alpha) * e_{t-1} + alpha * phi(a_t)                                       (28)
// delta_t = alpha * phi'(a_t) * dh_t,  to e_{t-1}: (1 - alpha) * dh_t
// dalpha = sum_t (phi(a_t) - e_{t-1}) * dh_t
template <class Real>
struct LeakyState : AnyCell<Real> {
  using V = Vector<Real>;
  static constexpr int GATES = 1;
  static constexpr bool LEAKS = true;
  INLINE void gates(Real* a, int64_t n) const { apply_phi<Real>(this->phi, a, n); }
  INLINE After<Real> step(const V* gates, V e, V alpha) const {
    const V h = e + alpha * (gates[0] - e);
    return {h, h};
  }
  INLINE Cotangents<Real, 1> adjoint(const Stepped<Real>& s) const {
    const V d = s.dh + s.d_output;
    return {{s.alpha * phi_derivative<Real>(this->phi, s.gates[0]) * d},
            RIGHT_OR_FAULT(1 - s.alpha, 19, s.alpha) * d, d, s.gates[0] - RIGHT_OR_FAULT(s.before, 20, V{})};
  }
};

template <class Real>
INLINE Vector<Real> load_at(const Real* a, int i) {
  return load<Real>(a + i * W<Real>);
}
template <class Real>
INLINE void store_at(Real* a, int i, Vector<Real> x) {
  store<Real>(a + i * W<Real>, x);
}

// i, f, o = sigmoid of their blocks, g = tanh of its block
// c_t = f * e^c + i * g,  h_t = o * tanh(c_t)                                          (24)
//
// q = dc_t + dh_t * o * (1 - tanh(c_t)^2)
// delta_i = q * g * i * (1 - i)        delta_f = q * e^c * f * (1 - f)
// delta_g = q * i * (1 - g^2)          delta_o = dh_t * tanh(c_t) * o * (1 - o)
// to e^c: q * f                                                                        (25)
template <class Real>
struct LSTM : AnyCell<Real> {
  using V = Vector<Real>;
  using Of = Fed<4, 4>;
  static constexpr int STATES = 2, GATES = 4;
  static constexpr bool KEEPS = true;
  INLINE void gates(Real* a, int64_t n) const {
    for (int64_t i = 0; i < n; i += 4, a += 4 * W<Real>)
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        const V x = load_at(a, g);
        store_at(a, g, g == 2 ? tanh_of<Real>(x) : sigmoid_of<Real>(x));
      }
  }
  INLINE After<Real> step(const V* gates, V e, V) const {
    const V c = gates[1] * e + gates[0] * gates[2];
    return {c, gates[3] * tanh_of<Real>(c)};
  }
  INLINE Cotangents<Real, 4> adjoint(const Stepped<Real>& s) const {
    const V i = s.gates[0], f = s.gates[1], g = s.gates[2], o = s.gates[3];
    const V tanh_c = tanh_of<Real>(s.after), dh = s.dh + s.d_output;
    const V q = s.dc + dh * o * (1 - RIGHT_OR_FAULT(tanh_c * tanh_c, 21, V{}));
    return {{q * g * i * (1 - i), q * RIGHT_OR_FAULT(s.before, 22, s.after) * f * (1 - f), q * i * (1 - g * g),
             dh * tanh_c * o * (1 - o)},
            q * f};
  }
};

// r, z = sigmoid of their blocks, n = tanh(a_n + r * a_u)
// h_t = n + z * (e_{t-1} - n)                                                          (26)
//
// delta_n = dh_t * (1 - z) * (1 - n^2)            delta_r = delta_n * a_u * r * (1 - r)
// delta_z = dh_t * (e_{t-1} - n) * z * (1 - z)    delta_u = delta_n * r
// to e_{t-1}: dh_t * z                                                                 (27)
template <class Real>
struct GRU : AnyCell<Real> {
  using V = Vector<Real>;
  using Of = Fed<4, 3>;
  static constexpr int GATES = 4;
  INLINE void gates(Real* a, int64_t n) const {
    for (int64_t i = 0; i < n; i += 4, a += 4 * W<Real>) {
      const V r = sigmoid_of<Real>(load_at(a, 1)), z = sigmoid_of<Real>(load_at(a, 2));
      store_at(a, 0, tanh_of<Real>(load_at(a, 0) + r * load_at(a, 3)));
      store_at(a, 1, r), store_at(a, 2, z);
    }
  }
  INLINE After<Real> step(const V* gates, V e, V) const {
    const V n = gates[0], h = n + gates[2] * (e - n);
    return {h, h};
  }
  INLINE Cotangents<Real, 4> adjoint(const Stepped<Real>& s) const {
    const V n = s.gates[0], r = s.gates[1], z = s.gates[2], u = s.gates[3], dh = s.dh + s.d_output;
    const V delta_n = dh * (1 - z) * (1 - n * n);
    return {{delta_n, delta_n * u * r * (1 - r), dh * (s.before - n) * z * (1 - z),
             RIGHT_OR_FAULT(delta_n * r, 23, delta_n)},
            RIGHT_OR_FAULT(dh * z, 24, V{})};
  }
};

// f(the cell that the sizes name)
template <class Real, class F>
void with_cell(const JrnnSizes& s, F f) {
  switch (s.cell) {
    case JRNN_ELMAN: return f(Elman<Real>{s.phi});
    case JRNN_LEAKY_INPUT: return f(LeakyInput<Real>{s.phi});
    case JRNN_LEAKY_STATE: return f(LeakyState<Real>{s.phi});
    case JRNN_LSTM: return f(LSTM<Real>{s.phi});
    case JRNN_GRU: return f(GRU<Real>{s.phi});
  }
}

}  // namespace
