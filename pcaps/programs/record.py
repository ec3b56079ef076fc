#!/usr/bin/env python3
"""Runs every program of ``programs.py`` in a lab of network namespaces and records them with tcpdump.

    record.py OUTPUT_DIRECTORY                              (as root)
    record.py OUTPUT_DIRECTORY --filter client=FILE --filter server=FILE

Writes network.pcap (the bridge: every packet of client and server once), client.pcap, server.pcap, partner.pcap (what
each host saw), and programs.json: when each scenario began and what its program said. With ``--filter`` the programs
run behind the kernel's filter: nftables rules from a file, loaded on that host.

Takes about 25 s, more behind a filter, and ends after four minutes at the latest. Namespaces and programs go away
on exit. Nothing leaves the namespaces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import recorder
import services
from lab import HOSTS, ROUTER, Lab
from programs import SCENARIOS, Ends

LIMIT_SECONDS = 240
#: Between two scenarios: the last packets of one are over before the next one begins.
GAP_SECONDS = 0.2
#: Where each capture is taken.
CAPTURES = {"network": (ROUTER, "br0"), **{host: (host, "eth0") for host in HOSTS}}


def record(output: Path, filters: Mapping[str, str]) -> None:
    """``filters``: nftables rules by host."""
    with tempfile.TemporaryDirectory(prefix="sgfast-programs-") as name:
        folder = Path(name)
        # Servers that drop root must get at their files.
        folder.chmod(0o755)
        with Lab(folder) as lab:
            services.start_all(lab)
            for family in (4, 6):
                for host in HOSTS:
                    for address in {HOSTS[other].addresses[family] for other in HOSTS} | {HOSTS[host].router[family]}:
                        lab.wait_until(host, "ping", "-n", "-c", "1", "-W", "1", address)
            for host, rules in filters.items():
                lab.load_filter(host, rules)
            dumps = [
                recorder.start_dump(lab, *place, folder / f"{capture}.pcap") for capture, place in CAPTURES.items()
            ]
            scenarios = []
            for family in (4, 6):
                for scenario in SCENARIOS:
                    time.sleep(GAP_SECONDS)
                    for host in filters:
                        lab.forget_connections(host)
                    began = time.time_ns()
                    outcome = scenario.outcome(lab, Ends(family))
                    scenarios.append({
                        "name": f"{scenario.name}-{family}", "program": f"{scenario.program}, IPv{family}",
                        "began_ns": began, "ended_ns": time.time_ns(), "outcome": outcome,
                        "outcome_tells": scenario.tells,
                    })  # fmt: skip
                    print(f"{scenario.name}-{family}: {outcome}", file=sys.stderr)
            time.sleep(2 * GAP_SECONDS)
            for dump in dumps:
                lab.stop(dump, signal.SIGINT)
            for capture, (host, _) in CAPTURES.items():
                recorder.complain_about_losses(lab, host, capture)
        for capture in CAPTURES:
            shutil.copyfile(folder / f"{capture}.pcap", output / f"{capture}.pcap")
    lines = ",\n".join(f"  {json.dumps(scenario)}" for scenario in scenarios)
    (output / "programs.json").write_text(f"[\n{lines}\n]\n")


def _filter(text: str) -> tuple[str, str]:
    host, _, path = text.partition("=")
    if host not in HOSTS:
        raise argparse.ArgumentTypeError(f"HOST=FILE, where HOST is one of {', '.join(HOSTS)}")
    try:
        return host, Path(path).read_text()
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs the programs of programs.py in a lab, and records them.")
    parser.add_argument("output", type=Path, help="an existing directory")
    parser.add_argument("--filter", type=_filter, action="append", default=[], metavar="HOST=FILE",
                        help="nftables rules to load on a host")  # fmt: skip
    arguments = parser.parse_args()
    programs = services.PROGRAMS | (services.FILTER_PROGRAMS if arguments.filter else {})
    recorder.check(parser, arguments.output, programs)
    recorder.run(parser, LIMIT_SECONDS, lambda: record(arguments.output, dict(arguments.filter)))


if __name__ == "__main__":
    main()
