"""The command line of the other examples: settings, and the exit status."""

import sys
from collections.abc import Callable

try:  # all packages of a run, before it begins
    from char_model.settings import Checked as Checked
    from char_model.settings import NotNegative as NotNegative
    from char_model.settings import NotNegativeFloat as NotNegativeFloat
    from char_model.settings import Positive as Positive
    from char_model.settings import PositiveFloat as PositiveFloat
except ImportError as error:
    sys.exit(f"error: {error}")


def exit_status(work: Callable[[], str], interrupted: str) -> int:
    """Run a program and print the report that it returns.

    Args:
        work: the program.
        interrupted: the state of its results after Ctrl-C.

    Returns:
        0, 1 after bad input or an OSError, or 130 after Ctrl-C.
    """
    try:
        report = work()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return 130
    print(report)
    return 0
