"""The faults of `backends.Loops`, and which cells can have them."""

# Of any cell, without lengths and resets.
STEPS = (
    "w_hh not transposed",
    "link through time cut",
    "link through time 0.1 % weak",
    "Jacobians in the order of time",
    "cotangent of h_last dropped",
    "cotangent of h_last doubled",
    "cotangents of hs one step late",
    "last cotangent of hs dropped",
    "mean over the batch for the sum",
    "deltas rounded to float32",
    "deltas one step late",
    "deltas of the examples shifted",
    "dh_0 zero",
    "dh_0 0.1 % large",
    "db 0.1 % large",
    "one entry of dw_hh zero",
    "dw_ih halved",
    "dx zero at the last step",
    "dx one step late",
    "link cut at the border of a chunk",
    "link 0.1 % weak at the border of a chunk",
    "chunks in the order of time",
    "rest of the sequence dropped",
    "sums forgotten at the border of a chunk",
    "x of the examples shifted",
    "h_0 before every chunk",
    "h_t for h_{t-1} before a chunk",
    "h_t for h_{t-1} in dw_hh",
    "h_0 left out of dw_hh",
    "h_{t-2} for h_{t-1} in dw_hh",
)
# Of any cell, with lengths, resets, reset states, a recurrent mask and clipping.
SEQUENCES = (
    "cut behind the step of a reset",
    "the padding has a gradient",
    "no gradient of the reset state",
    "dh_r 0.1 % large",
    "no gradient of the mask",
    "gradient of the mask from the masked state",
    "the mask left out of the link",
    "the mask left out of dw_hh",
    "nothing is clipped",
    "clipped before the adjoint",
    "the state before a reset in dw_hh",
    "zero for the reset state in dw_hh",
    "a reset one step late in dw_hh",
)
# Of one block, whose delta is phi' dh.
ELMAN = ("phi' missing", "phi' of the step before")
# Of cells whose gates are recomputed.
RECOMPUTED = ("recomputation sees the padding", "recomputation without the bias")
# Of cells with a path from state to state beside the matmul.
BESIDE = (
    "beside the matmul nothing",
    "beside the matmul nothing at dh_0",
    "beside the matmul nothing at dh_r",
    "beside the matmul the mask",
    "beside the matmul clipped",
)
# Of cells with several blocks.
BLOCKS = (
    "deltas of other blocks to the steps before",
    "blocks of dw_hh in another order",
    "blocks of dx in another order",
    "db of a block from the block before it",
)
OTHER_BLOCKS = ("dw_hh from the blocks that x feeds",)  # than those that h feeds
UNIT = ("unit gradient of one step", "unit gradient of one sequence")
FIRST = ("dh_0 through a reset",)  # of a first step that a reset comes before
FAULTS = (*STEPS, *SEQUENCES, *ELMAN, *RECOMPUTED, *BESIDE, *BLOCKS, *OTHER_BLOCKS, *UNIT, *FIRST)


def faults_of(name):
    """Those that a cell can have."""
    found = [*STEPS, *SEQUENCES, *(ELMAN if name == "tanh" else RECOMPUTED)]
    if name != "tanh":
        found += BESIDE
    if name in ("leaky", "rate"):
        found += UNIT
    if name in ("lstm", "gru", "mgu"):
        found += BLOCKS
    if name == "gru":
        found += OTHER_BLOCKS
    return found
