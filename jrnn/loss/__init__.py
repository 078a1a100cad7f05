"""Losses of the outputs of a recurrent network.

softmax.py      readout (3) and softmax cross-entropy (4), (5), with all logits in memory
regression.py   losses of real numbers (30)-(34)
blockwise.py    readout and loss in one, `readout_cross_entropy`: outputs are not in memory at once
recurrent.py    with the recurrence, `rnn_loss`: with `remat` neither are the states
"""
