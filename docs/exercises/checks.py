"""The tests of the exercises; docs/exercises.md gives the command that runs them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

import jrnn
from jrnn import derivation

T, I, H, O = 5, 3, 4, 2  # all different: a transposed matrix must not fit
DRAW = np.random.default_rng(0).normal


def weights(*shape):
    """Random numbers, as an array of JAX."""
    return jnp.asarray(DRAW(size=shape))


RNN = jrnn.RNNParams(weights(I, H), weights(H, H), weights(H))
LSTM = jrnn.LSTMParams(weights(I, 4 * H), weights(H, 4 * H), weights(4 * H))
READOUT = jrnn.ReadoutParams(weights(H, O), weights(O))
XS, H0, DHS = weights(T, I), weights(H), weights(T, H)
LABELS = jnp.arange(T) % O


def close(found, expected, rtol=1e-10, atol=1e-12, where="", mistakes=None):
    """Every array of one tree against that of another; a failure names the array, or the mistake.

    `mistakes`: the results of common mistakes, by their names.
    """
    __tracebackhide__ = True  # the line of the test is the one to look at
    came, wanted = (jax.tree.map(np.shape, tree) for tree in (found, expected))
    if jax.tree.leaves(came) != jax.tree.leaves(wanted):
        raise AssertionError(f"the shapes of the answer{where} are\n{came}\ninstead of\n{wanted}")
    leaves = zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True)
    for (path, a), b in leaves:
        name = f"the answer{where} {jax.tree_util.keystr(path)}".rstrip()
        if np.allclose(a, b, rtol, atol):
            continue
        for mistake, wrong in (mistakes or {}).items():
            pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wrong), strict=True)
            if all(np.allclose(x, y) for x, y in pairs):
                raise AssertionError(f"the answer{where} is {mistake}")
        apart = np.abs(a - b).max()
        raise AssertionError(f"{name} is wrong by up to {apart:.2g}:\n{a}\ninstead of\n{b}")


def plain_states(rnn, xs, h0):
    """The states by a loop that JAX differentiates."""
    hs = [h0]
    for x_t in xs:
        hs.append(jnp.tanh(x_t @ rnn.w_ih + hs[-1] @ rnn.w_hh + rnn.b_h))
    return jnp.stack(hs[1:])


def cost(at):
    """The total cost, by loops and by JAX's own softmax."""
    hs = plain_states(at.rnn, XS, at.h0)
    log_p = jax.nn.log_softmax(hs @ at.readout.w_ho + at.readout.b_o[None])
    return -jnp.take_along_axis(log_p, LABELS[:, None], 1).sum()


def test_1_softmax_jacobian(answers):
    """Against automatic differentiation of the softmax."""
    o = jnp.array([2.0, 1.0, 0.1])
    p = jax.nn.softmax(o)
    mistakes = {"right on the diagonal alone": jnp.diag(p * (1 - p))}
    close(answers.softmax_jacobian(p), jax.jacrev(jax.nn.softmax)(o), mistakes=mistakes)


def test_2_logits_derivative(answers):
    """One true class; two half true ones; labels that do not sum to 1."""
    o = jnp.array([2.0, 1.0, 0.1])

    def loss(o, y):
        return -(y * jax.nn.log_softmax(o)).sum()

    for y in jnp.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [1.0, 0.2, 0.3]]):
        p = jax.nn.softmax(o)
        mistakes = {"p - y, which needs labels that sum to 1": p - y}
        close(answers.logits_derivative(p, y), jax.grad(loss)(o, y), mistakes=mistakes)


def test_3_state_jacobian(answers):
    """Against automatic differentiation of one step."""
    hs = plain_states(RNN, XS, H0)

    def step(h, x_t):
        return jnp.tanh(x_t @ RNN.w_ih + h @ RNN.w_hh + RNN.b_h)

    jacobians = [jax.jacrev(step)(h, x_t) for h, x_t in zip([H0, *hs[:-1]], XS, strict=True)]
    for t in (1, 3):
        right = jacobians[t - 1]
        mistakes = {
            "the transpose": right.T,
            "that of step t + 1": jacobians[t],
            "that of h @ w_hh.T": jnp.diag(1 - hs[t - 1] ** 2) @ RNN.w_hh,
        }
        close(answers.state_jacobian(RNN, hs, t), right, where=f" for t = {t}", mistakes=mistakes)


def at_zeros():
    """The parameters, and h_0 = 0."""
    return derivation.Gradients(RNN, READOUT, jnp.zeros(H))


def of_one_step():
    """A common mistake in sums over t and k."""
    found = derivation.gradients_truncated(RNN, READOUT, XS, LABELS, window=1)
    return {"the sum of the terms with k = t alone": found}


def test_4_gradients_double_sum(answers):
    """Against differences of the cost, which need no derivation."""
    found = answers.gradients_double_sum(RNN, READOUT, XS, LABELS)
    right = derivation.finite_differences(jax.jit(cost), at_zeros())
    close(found, right, rtol=0, atol=1e-8, mistakes=of_one_step())


def test_5_gradients_recursion(answers):
    """The same gradient, and twice the steps take twice the multiplications, not four times."""
    found = answers.gradients_recursion(RNN, READOUT, XS, LABELS)
    close(found, jax.jit(jax.grad(cost))(at_zeros()), mistakes=of_one_step())

    def program(n):
        xs, labels = jnp.zeros((n, I)), jnp.zeros(n, int)
        try:
            return jax.make_jaxpr(answers.gradients_recursion)(RNN, READOUT, xs, labels).jaxpr
        except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError):
            wanted = "its operations are counted while JAX traces it: write it with jnp"
            raise AssertionError(f"the gradient is right; {wanted}") from None

    ratio = multiplications(program(32)) / multiplications(program(16))
    np.testing.assert_array_less(ratio, 2.5, "the multiplications of 32 steps, compared with 16")


def test_6_states(answers):
    """The states, their gradient, and the backward loop: one vector carried, one matmul."""
    close(answers.states(RNN, XS, H0), plain_states(RNN, XS, H0))

    def pulled_back(states):
        return jax.jit(jax.grad(lambda *at: (states(*at) * DHS).sum(), (0, 1, 2)))

    gradient = pulled_back(answers.states)
    close(gradient(RNN, XS, H0), pulled_back(plain_states)(RNN, XS, H0))
    program = list(equations(jax.make_jaxpr(gradient)(RNN, XS, H0).jaxpr))
    loops = [e for e in program if e.primitive.name == "scan" and e.params["reverse"]]
    np.testing.assert_equal(len(loops), 1, "the number of backward loops")
    body = loops[0].params["jaxpr"].jaxpr
    pairs = zip(loops[0].outvars, body.outvars, strict=True)
    carried = [out.aval.shape for out, of_a_step in pairs if out.aval.shape == of_a_step.aval.shape]
    if carried != [(H,)]:
        raise AssertionError(
            f"the backward loop carries arrays of the shapes {carried} instead of {[(H,)]}: "
            "JAX differentiates a scan of its own; jax.custom_vjp lets you write the loop"
        )
    matmuls = sum(e.primitive.name == "dot_general" for e in equations(body))
    np.testing.assert_equal(matmuls, 1, "the matmuls of one step of the backward loop")


def test_7_sensitivity_step(answers):
    """After every step, the gradient of the losses so far."""
    carry = derivation.sensitivity_init(RNN, READOUT)
    found = []
    for x_t, label in zip(XS, LABELS, strict=True):
        carry, out = answers.sensitivity_step(RNN, READOUT, carry, x_t, label)
        found.append((out.gradients, carry.total))
    per_step = derivation.gradients_per_step(RNN, READOUT, XS, LABELS)
    for t, (of_the_step, total) in enumerate(found):
        where = f" after step {t + 1}"
        close(of_the_step, jax.tree.map(lambda g, t=t: g[t], per_step), where=where)
        close(total, jax.tree.map(lambda g, t=t: g[: t + 1].sum(0), per_step), where=where)


def test_8_lstm_recursion(answers):
    """Against automatic differentiation of the scan."""

    def cost(at):
        _, hs = derivation.lstm_scan(at.params, XS, at.state)
        return jrnn.softmax_cross_entropy(jrnn.readout(at.readout, hs), LABELS).sum()

    at = derivation.LSTMGradients(LSTM, READOUT, jrnn.LSTMState(jnp.zeros(H), jnp.zeros(H)))
    close(answers.lstm_recursion(LSTM, READOUT, XS, LABELS), jax.jit(jax.grad(cost))(at))


def multiplications(jaxpr):
    """The number of them in a program; XLA's own count takes the body of a loop once."""
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        if name == "while":
            raise AssertionError("a loop of unknown length: take a for loop or jax.lax.scan")
        inner = sum(map(multiplications, jaxprs_in_params(params)))
        total += params["length"] * inner if name == "scan" else inner
        size = equation.outvars[0].aval.size
        if name == "mul":
            total += size
        if name == "dot_general":
            (axes, _), _ = params["dimension_numbers"]
            total += size * math.prod(equation.invars[0].aval.shape[axis] for axis in axes)
    return total


def equations(jaxpr):
    """The equations of a program, and of the programs within it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)
