"""Train a character-level language model on real text, and sample from it.

    python examples/char_lm.py                                  # CPython's language reference
    python examples/char_lm.py --cell lstm                      # an LSTM; gru, a GRU
    python examples/char_lm.py --text book.txt notes.txt        # your own
    python examples/char_lm.py --sample 500 --prompt "The "     # from the model in --out

Ctrl-C stops the training and saves everything. The package `char_model` does the work.
"""

import os
import sys


def open_closed() -> None:
    """Open /dev/null for closed standard descriptors, before anything else is opened.

    Otherwise the next file would get their numbers, and the logs of native code. It is opened in
    the opposite direction, so reading and writing still fail.
    """
    for number, flags in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, flags), True
            )  # open() takes the lowest free number
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)  # None where it was closed
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


if __name__ == "__main__":
    open_closed()  # before an import opens a file
    try:
        from char_model.main import program
    except ImportError as error:
        sys.exit(f"error: {error}")
    sys.exit(program())
