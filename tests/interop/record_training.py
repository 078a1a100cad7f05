"""Train torch's LSTM and GRU by the recipe, and record their losses for the tests.

pip install -r tests/interop/requirements.txt
python tests/interop/record_training.py           writes tests/recorded/training.json
"""

import json

import torch
from recipe import ADAM, BLOCKS, RECORD, H, V, batches, learned_part, weights


def losses(kind):
    """Truncated BPTT: the state goes on from batch to batch, the gradient does not."""
    rnn, readout = getattr(torch.nn, kind.upper())(V, H), torch.nn.Linear(H, V)
    for module, state_dict in zip((rnn, readout), weights(kind), strict=True):
        module.load_state_dict({name: torch.tensor(x) for name, x in state_dict.items()})
    part = torch.tensor(learned_part(kind))
    rnn.bias_hh_l0.register_hook(lambda gradient: gradient * part)
    optimizer = torch.optim.Adam(
        [*rnn.parameters(), *readout.parameters()],
        lr=ADAM["learning_rate"],
        betas=(ADAM["b1"], ADAM["b2"]),
        eps=ADAM["eps"],
    )
    state, found = None, []
    for ids, labels in zip(*batches(), strict=True):
        xs = torch.nn.functional.one_hot(torch.tensor(ids).long(), V).float()
        hs, state = rnn(xs, state)
        logits = readout(hs).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels).long().flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = tuple(s.detach() for s in state) if kind == "lstm" else state.detach()
        found.append(round(loss.item(), 7))
    return found


if __name__ == "__main__":
    about = {"command": "python tests/interop/record_training.py", "torch": torch.__version__}
    found = {kind: losses(kind) for kind in BLOCKS}
    RECORD.write_text(json.dumps({**about, **found}, indent=1) + "\n")
    for kind, each in found.items():
        print(kind, each[0], each[-1])
