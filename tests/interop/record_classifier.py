"""Run torch's classifier of packed sequences, and record its logits for the tests.

pip install -r tests/interop/requirements.txt
python tests/interop/record_classifier.py         writes tests/recorded/classifier.npz

The code of docs/tutorials/from_torch.md, which compares both libraries, also runs here.
"""

import re
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "tests/recorded/classifier.npz"
PAGE = ROOT / "docs/tutorials/from_torch.md"

T, LENGTHS, V, I, H, O = 7, np.array([4, 7, 1, 6]), 9, 3, 5, 2


def main():
    """Ids to logits by an embedding, two layers in both directions, and a linear layer."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(V, I),
            "lstm": torch.nn.LSTM(I, H, num_layers=2, bidirectional=True),
            "linear": torch.nn.Linear(2 * H, O),
        }
    )
    ids = torch.randint(V, (T, len(LENGTHS)))
    packed = pack_padded_sequence(model["embedding"](ids), LENGTHS, enforce_sorted=False)
    _, (h_n, _) = model["lstm"](packed)
    logits = model["linear"](torch.cat([h_n[-2], h_n[-1]], -1))
    arrays = {name: x.numpy() for name, x in model.state_dict().items()}
    arrays |= {"ids": ids.numpy(), "lengths": LENGTHS, "logits": logits.detach().numpy()}
    np.savez_compressed(RECORD, torch=torch.__version__, **arrays)
    print(f"{RECORD.relative_to(ROOT)}: {RECORD.stat().st_size:,} bytes")
    code = "\n".join(re.findall(r"^```python.*?\n(.*?)^```", PAGE.read_text(), re.S | re.M))
    exec(compile(code, PAGE.name, "exec"), {"__name__": PAGE.name})
    print(f"{PAGE.relative_to(ROOT)} runs")


if __name__ == "__main__":
    main()
