"""The command line of the character model."""

import contextlib
import io
import logging
import signal
import sys

import jax
from devices import on_devices
from streams import guarded

from jrnn.parallel import use_cpu_cores

from .devices import join
from .run import OPTIONS_OF_SIZE, train
from .sample import write_samples
from .settings import Settings, parse
from .signals import StopFlag


def main(argv: list[str] | None = None) -> int:
    """Run the program; return 0, 1 after bad input or a failed write, or 130 after Ctrl-C."""
    settings = parse(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # escape characters that the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax also raises what it logs
    with StopFlag() as stop, guarded("stderr", spare=True):
        try:
            with guarded("stdout", spare=not settings.sample) as output:
                status = run(settings, stop)
        except BrokenPipeError:  # the reader of the sample has closed the pipe
            return 1
        except (ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:  # before or after training; during it StopFlag is used
            print("interrupted", file=sys.stderr)
            return 128 + (stop.signum or signal.SIGINT)
        if output.error is not None and not isinstance(output.error, BrokenPipeError):
            print(f"{output.error}; the run did without it", file=sys.stderr)
        return status


def run(settings: Settings, stop: StopFlag) -> int:
    """Run the command; return the exit status."""
    join(settings)
    silent = contextlib.redirect_stdout(io.StringIO())  # only one process prints
    with (
        on_devices(f"--num-samples, {OPTIONS_OF_SIZE}"),
        silent if jax.process_index() > 0 else contextlib.nullcontext(),
    ):
        if settings.sample is None:
            trained = train(settings, stop=stop)
            if stop.signum is not None or not trained.finished:
                return 130 if stop.signum == signal.SIGINT else int(not trained.saved)
            print("a sample:\n")
        if jax.process_index() == 0:
            write_samples(settings)
    return 0


def program() -> int:
    """Run the program in a process of its own."""
    use_cpu_cores()  # before JAX creates its devices
    status = main()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to do or print
    return status
