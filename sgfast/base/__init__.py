"""The ground that every other room stands on: files and processes, errors, evidence, answers in print.

The modules of files and processes are the outputs of commands (``output``, ``pending_file``, ``write_behind``), the
names of files in messages (``names``), byte streams (``streams``), the signals that end a command (``signals``), and
the sandbox (``sandbox``). Nothing here knows a policy.
"""

import os


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
