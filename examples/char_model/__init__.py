"""A character-level language model: train it, evaluate it, sample from it.

    from dataclasses import replace
    from examples.char_model import Settings, evaluate, sample, train

    settings = Settings(text=["book.txt"], out="out/book", cell="lstm", steps=1000)
    trained = train(settings, on_metrics=print)  # a row of metrics for each evaluation
    evaluate(settings)  # bits per character on held-out text
    for (text,) in sample(replace(settings, sample=500, prompt="The ")):
        print(text, end="", flush=True)

`examples/char_lm.py` is its command line. The network reads a character and predicts the next one.
The text is split into streams that are read in parallel, in chunks. The hidden state passes from
chunk to chunk, the gradient does not (truncated BPTT). The last tenth of the text is the validation
set; the results of n-gram models on the same characters are printed for comparison.
"""

import sys
from pathlib import Path

try:  # all packages of a run, before it begins
    import matplotlib as matplotlib
    import safetensors as safetensors
    import tqdm as tqdm
    import tyro as tyro
    from orbax import checkpoint as checkpoint
except ImportError as error:
    hint = "pip install -e '.[examples]', in the clone of jrnn, brings it"
    raise ModuleNotFoundError(f"{error.name} is missing: {hint}", name=error.name) from None

if (shared := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.append(shared)  # the folder of the modules that all examples share

from .model import Model as Model
from .run import Trained as Trained
from .run import evaluate as evaluate
from .run import train as train
from .sample import sample as sample
from .settings import Settings as Settings
