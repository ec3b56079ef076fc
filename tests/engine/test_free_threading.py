"""Python without a GIL: sgfast leaves it off, and threads share an engine as ever (SPEC 10.20)."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import threading

import pytest

from sgfast import Engine
from sgfast.clouds.loading import parse_policy
from sgfast.core.check_one import KEPT_AT_MOST

POLICY = parse_policy(
    "version: 1\n"
    "security_groups: [{name: g, rules: [{direction: inbound, protocol: tcp}]}]\n"
    "instances: [{name: a, addresses: [10.0.0.1], security_groups: [g]}]\n"
)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_no_module_turns_the_gil_on() -> None:
    script = (
        "import importlib, pathlib, sgfast, sys\n"
        "folder = pathlib.Path(sgfast.__file__).parent\n"
        "for path in sorted(folder.rglob('*.pyx')):\n"
        "    importlib.import_module('.'.join(path.relative_to(folder.parent).with_suffix('').parts))\n"
        "print(sys._is_gil_enabled())\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n" and run.stderr == ""


def test_verdicts_are_kept_and_forgotten_while_other_threads_read_them() -> None:
    engine = Engine(POLICY)
    wrong: list[object] = []

    def check(number: int) -> None:
        for port in range(500):
            verdict = engine.check("198.51.100.1", "10.0.0.1", "tcp", sport=port + 1, dport=number + 1)
            if verdict.verdict != "allow":
                wrong.append(verdict)

    def forget(number: int) -> None:
        for n in range(3 * KEPT_AT_MOST):
            engine._single.keep(n.to_bytes(8, "big"), POLICY)

    threads = [threading.Thread(target=work, args=(n,)) for n, work in enumerate((check, check, check, forget))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
