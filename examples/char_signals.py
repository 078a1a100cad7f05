"""What ends a run before its end: Ctrl-C, SIGTERM, and SIGHUP, of a terminal that has gone."""

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
    """The first signal ends the run, and none that follows it does anything.

    A signal raises KeyboardInterrupt, but within `deferred`, where there is work to lose: there it
    sets the flag, which is read between steps (inside one the donated buffers are lost). Of several
    processes whichever gets the signal stops all, at the same step: SIGTERM is caught by JAX's
    runtime, and the others are made one.

    A signal that is ignored when it begins stays so: `nohup` is for that.
    """

    signum: int | None = None

    def __enter__(self) -> "StopFlag":
        """Take the signals over."""
        self._deferred = self._several = False
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
            # print() may be what was interrupted, and does not bear it; nobody may be there to read
            with contextlib.suppress(OSError):
                os.write(sys.__stderr__.fileno(), b"\nstopping after this step, and saving\n")
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let what is done inside come to its end, whatever the signal."""
        self._several = jax.process_count() > 1
        if self._several:
            self._previous.pop(signal.SIGTERM, None)  # it is JAX's
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def is_set(self, step: int) -> bool:
        """Whether the run is to stop after this step."""
        if not self._several:
            return self.signum is not None
        return bool(multihost_utils.reached_preemption_sync_point(step))

    def __exit__(self, *exception: object) -> None:
        """Give the signals back; after one, the process is to end in peace, and ignores them."""
        for signum, handler in self._previous.items():
            signal.signal(signum, handler if self.signum is None else signal.SIG_IGN)
