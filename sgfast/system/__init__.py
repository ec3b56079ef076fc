"""Files and processes: what the operating system is asked for.

Here belong the outputs of commands (``output``, ``pending_file``, ``write_behind``), how messages name files
(``names``), the signals that end a command (``signals``), and what a confined process gives up (``sandbox``). This
package knows no captures and no policies.
"""

import os


def usable_processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
