"""Losses of the outputs of a recurrent network.

softmax.py      readout (3) and softmax cross-entropy (4), (5), with all logits in memory
blockwise.py    both in one, `readout_cross_entropy`: the logits are never in memory at once
recurrent.py    with the recurrence, `rnn_cross_entropy`: with `remat` neither are the states
"""
