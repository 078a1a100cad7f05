"""Signals that stop a run: Ctrl-C, SIGTERM, and SIGHUP from a lost terminal."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class StopFlag:
    """The first signal stops the run, and later ones have no effect.

    A signal raises KeyboardInterrupt, except within `deferred`, where work could be lost: there it
    sets the flag, which is read between steps (within a step the donated buffers are lost). A
    signal to one of several processes stops all at the same step: JAX's runtime catches SIGTERM,
    and the other signals are turned into SIGTERM.

    A signal that is ignored at the start stays ignored, as `nohup` needs.
    """

    signum: int | None = None
    _deferred = _several = False

    def __init__(self) -> None:
        """Without a `with` block it takes no signal."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopFlag":
        """Install the handlers."""
        heeded = [s for s in SIGNALS if signal.getsignal(s) != signal.SIG_IGN]
        self._previous = {signum: signal.signal(signum, self._receive) for signum in heeded}
        return self

    def _receive(self, signum: int, frame: Any) -> None:
        if self.signum is not None:
            return
        self.signum = signum
        if not self._deferred:
            raise KeyboardInterrupt
        if sys.__stderr__ is not None:
            # print() may be the interrupted call and is not reentrant; the reader may be gone
            with contextlib.suppress(OSError):
                os.write(sys.__stderr__.fileno(), b"\nstopping after this step, and saving\n")
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the block finish after any signal."""
        self._several = jax.process_count() > 1
        if self._several:
            self._previous.pop(signal.SIGTERM, None)  # JAX handles it
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def is_set(self, step: int) -> bool:
        """Whether the run must stop after this step."""
        if not self._several:
            return self.signum is not None
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def __exit__(self, *exception: object) -> None:
        """Restore the handlers; after a signal, ignore further ones until the process ends."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler if self.signum is None else signal.SIG_IGN)
