"""Sample text from a trained character model."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from command import refuse
from devices import require_memory
from networks import CELLS, Model

import jrnn
from jrnn.model_file import load_model
from jrnn.text import Alphabet

from .data import quote
from .directory import BEST, MODEL, UNFINISHED, find_model
from .model import apply, cell_name, layers_of
from .settings import Settings, activations_of


def sample(settings: Settings) -> Iterator[list[str]]:
    """Continue `settings.prompt` by the model in `settings.out`, by `sample` characters or 300.

    The parts of the text are yielded as they are drawn, a list with one for each of `num_samples`.
    A ValueError is raised if there is no such model, if it is not finite, or if it does not know a
    character of the prompt.
    """
    model, described = read_model(settings)
    alphabet = Alphabet(described["characters"])
    units = sum(len(one.w_hh) for one in layers_of(model.rnn))
    check_sampling(settings, alphabet, CELLS[described["cell"]].states * units)
    w_ho, b_o = model.readout
    b_o = jnp.zeros_like(w_ho[0]) if b_o is None else jnp.asarray(b_o)
    never = b_o.at[0].set(-jnp.inf)  # never write U+FFFD
    known = alphabet.characters[1:]
    start = next(c for c in "\n " + known if c in known)  # of a sample without a prompt
    names = ("num_samples", "temperature", "top_k", "top_p")
    blocks = jrnn.sampling.generate(
        *(model.rnn, model.readout._replace(b_o=never), jax.random.key(settings.seed)),
        *(alphabet.encode(settings.prompt or start), settings.sample or 300),
        **{name: getattr(settings, name) for name in names},
        activation=described["activation"],
    )
    return ([alphabet.decode(ids) for ids in block] for block in blocks)


def write_samples(settings: Settings) -> None:
    """Stream one sample, or print several one after the other."""
    blocks, prompt = sample(settings), settings.prompt
    if settings.num_samples == 1:
        print(prompt, end="")
        for (text,) in blocks:
            print(text, end="", flush=True)
        print()
        return
    for i, texts in enumerate(zip(*blocks, strict=True), 1):
        print(f"--- sample {i}\n{prompt}{''.join(texts)}")


def read_model(settings: Settings) -> tuple[Model, dict[str, Any]]:
    """The model in `settings.out` and its settings; refuse those that `settings` contradict."""
    path = find_model(settings.out, BEST if settings.best else MODEL)
    params, described = load_model(path)
    name = f"model file {path}"
    model = as_model(name, params)
    described = check_settings(name, model, described)
    for option in ("cell", "activation"):
        if (asked := getattr(settings, option)) not in (None, described[option]):
            repair = "Leave it out, or train such a model."
            refuse(f"--{option}", f"{described[option]}, the one of {name}", asked, repair)
    if path.resolve().parent.name == UNFINISHED:
        note = f"{path} is read: step {described.get('step')} of a run that has not finished"
        print(note, file=sys.stderr)
    return model, described


def check_sampling(settings: Settings, alphabet: Alphabet, state_size: int) -> None:
    """Refuse a prompt with unknown characters, and samples that do not fit into memory."""
    if unknown := alphabet.unknown(settings.prompt):
        known = alphabet.characters[1:]
        known = repr(known) if len(known) <= 200 else f"{len(known):,} others"
        expected = "characters of the training text"
        refuse("--prompt", expected, quote(unknown), f"The model knows {known}.")
    n = settings.num_samples
    held = 0 if n == 1 else settings.sample or 0  # a single sample is printed as it grows
    numbers = n * (state_size + 2 * len(alphabet.characters) + held)
    require_memory(numbers, f"{n:,} samples", "--num-samples or --sample")


def as_model(name: str, params: Any) -> Model:
    """Check the parameters of a model file, which may belong to any network."""
    kinds, came = [kind.params.__name__ for kind in CELLS.values()], type(params).__name__
    found = {part: type(x).__name__ for part, x in params.items()} if came == "dict" else came
    if isinstance(found, dict) and found.get("rnn") == "StackParams":
        found["rnn"] = " and ".join(sorted({type(x).__name__ for x in layers_of(params["rnn"])}))
    if found not in [{"rnn": kind, "readout": "ReadoutParams"} for kind in kinds]:
        expected = f"a character model, rnn of {', '.join(kinds)} and readout of ReadoutParams"
        refuse(name, f"{expected}, or a stack of one kind", found, "Train the model again.")
    model = Model(**params)
    jax.eval_shape(logits, model, np.zeros(1, np.int32))  # refuses shapes that do not fit
    return model


def logits(model: Model, ids: jax.Array) -> jax.Array:
    """`[T, O]`, after each of the ids `[T]`."""
    return jrnn.readout(model.readout, apply(Settings(), model.rnn, ids, None)[1])


def check_settings(name: str, model: Model, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse settings of another model; return them with the cell, which old ones do not have."""
    cell = cell_name(model.rnn)
    settings = {"cell": cell, "activation": None} | dict(settings)
    characters, activation = settings.get("characters"), settings["activation"]
    I = max(2, len(layers_of(model.rnn)[0].w_ih))  # U+FFFD and at least one other character
    size = len(characters) if isinstance(characters, str) else None
    if size != I or settings["cell"] != cell or activation not in activations_of(cell):
        alphabet = "no alphabet" if size is None else f"{size} characters"
        expected = f"a character model, cell {cell!r}, its activation and an alphabet of {I} "
        came = f"{alphabet}, cell {settings['cell']!r}, activation {activation!r}"
        refuse(name, f"{expected}characters", came, "Train the model again.")
    return settings
