"""Files and processes: all use of the operating system.

The modules are the outputs of commands (``output``, ``pending_file``, ``write_behind``), the names of files in messages
(``names``), the signals that end a command (``signals``), and the sandbox (``sandbox``). This package does not
know captures or policies.
"""

import os


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
