"""A Python that has OpenStack Neutron, for the tests only.

Neutron is never a dependency of sgfast: it lives in a virtual environment of its own, and tests skip without it.

    python tests/neutron/neutron_environment.py     makes the environment in build/neutron (a minute or two)
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "build" / "neutron"
PYTHON = FOLDER / "bin" / "python"
#: Its server and its firewall driver are called directly, so another version may need other calls.
PACKAGES = ("neutron==29.0.0", "python-openstackclient")
#: A file in the folder that says that all packages are installed.
COMPLETE = FOLDER / "complete"


def neutron_python() -> Path | None:
    """The interpreter that has Neutron: SGFAST_NEUTRON_PYTHON, or the one made here. None if there is none."""
    if given := os.environ.get("SGFAST_NEUTRON_PYTHON"):
        return Path(given)
    return PYTHON if COMPLETE.exists() else None


def main() -> None:
    if COMPLETE.exists():
        return
    venv.create(FOLDER, with_pip=True, clear=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    COMPLETE.touch()


if __name__ == "__main__":
    sys.exit(main())
