"""Parts of `benchmarks.device` that end in every way they can; light: each is a process."""

import os
import signal
import subprocess
import sys
import time


def right(context):
    yield {"cell": "right", "value": 1.5}
    yield "a line"


def raises(context):
    yield {"cell": "before"}
    raise ValueError("a bad value\nand more")


def misses_something(context):
    import no_such_library

    yield no_such_library


def crashes(context):
    yield {"cell": "before"}
    print("the driver's last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def is_killed(context):
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory ends
    yield {}


def leaves(context):
    yield {"cell": "before"}
    os._exit(3)


def hangs(context):
    yield {"cell": "before"}
    time.sleep(3600)


def hangs_with_a_child(context):
    child = subprocess.Popen(["sleep", "3600"])
    yield {"pid": child.pid}
    time.sleep(3600)


def asks_for_time(context):
    while context.left() > 0:
        time.sleep(0.01)
    yield f"left out for lack of time, {context.options['what']}"
