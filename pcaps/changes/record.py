#!/usr/bin/env python3
"""Records programs that talk for half a minute, for a policy that changes meanwhile.

    record.py OUTPUT_DIRECTORY                              (as root)

Writes network.pcap: the bridge of the lab in ``../programs/lab.py`` (with a drawing), every packet of client and server
once. There is no filter and nothing changes while it records: what changes.yaml does to it is up to the replay.

All programs speak in rounds, ``ROUND_SECONDS`` apart from the first packet on. No timeout of policy.yaml is a multiple
of that, and every change comes between two rounds; so a packet a tenth of a second late changes nothing. A later one
ends the recording with an error.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "programs"))

import recorder
import services
from lab import HOSTS, ROUTER, Lab, LabError
from programs import Ends, ssh

LIMIT_SECONDS = 120
ROUND_SECONDS = 1.1
ROUNDS = 31
LATEST_SECONDS = 0.15
#: From the last round to the end of the recording.
REST_SECONDS = 0.5

#: A connection is set up by then, an ssh one too.
FIRST_LINE = 2
#: A page over a connection of its own: round, from whom, to whom, families.
PAGES = [
    *((number, *way, (4, 6)) for number in (2, 7, 17) for way in (("partner", "server"), ("server", "partner"))),
    *((number, "client", "server", (4,)) for number in (19, 23, 28)),
]
#: From whom, to whom, over which family.
PINGS = [("partner", "server", 4), ("partner", "server", 6), ("server", "partner", 4), ("server", "partner", 6),
         ("server", "client", 4)]  # fmt: skip
#: When the client calls the server, and stays on the line.
CALL = 17

LOG_PORT = 514
#: Neither address resolution nor multicast listeners: time begins with the first packet that is recorded.
TALK = "tcp or udp or icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))"

PROGRAMS = {
    name: services.PROGRAMS[name]
    for name in ("curl", "ip", "nc", "nginx", "openssl", "ping", "redis-cli", "redis-server", "socat", "ss", "ssh",
                 "ssh-keygen", "sshd", "sysctl", "tcpdump")
}  # fmt: skip


class Talk:
    """Programs that send a line when they are told to."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._programs: list[tuple[int, subprocess.Popen[bytes]]] = []

    def begin(self, host: str, *command: str, first_line: int) -> None:
        self._programs.append((first_line, self._lab.start(host, *command, fed=True)))

    def say(self, number: int) -> None:
        for first_line, program in self._programs:
            if number >= first_line:
                assert program.stdin is not None
                try:
                    program.stdin.write(b"round %d\n" % number)
                    program.stdin.flush()
                except OSError as error:
                    raise LabError(f"{program.args!r} is gone: {error}") from error


def record(output: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sgfast-changes-") as name:
        folder = Path(name)
        # Servers that drop root must get at their files.
        folder.chmod(0o755)
        with Lab(folder) as lab:
            _serve(lab)
            dump = recorder.start_dump(lab, ROUTER, "br0", folder / "network.pcap", TALK)
            _rounds(lab)
            lab.stop(dump, signal.SIGINT)
            recorder.complain_about_losses(lab, ROUTER, "network")
        shutil.copyfile(folder / "network.pcap", output / "network.pcap")


def _serve(lab: Lab) -> None:
    """Starts the servers; every address that will be talked to has answered."""
    services.certificate(lab)
    services.ssh(lab)
    services.database(lab, "partner")
    for host in ("server", "partner"):
        services.web(lab, host)
    for host in HOSTS:
        services.echo(lab, host)
    for family in (4, 6):
        lab.start("server", "socat", "-u", f"UDP{family}-RECV:{LOG_PORT}" + ",ipv6only=1" * (family == 6), "STDOUT")
    for port in (22, 80):
        lab.wait_listening("server", "tcp", port)
    for port in (80, 6379):
        lab.wait_listening("partner", "tcp", port)
    for family in (4, 6):
        ends = Ends(family)
        for here, there in (("partner", "server"), ("server", "partner"), ("partner", "client"), ("client", "server")):
            lab.wait_until(here, "sh", "-c", f"echo ready | {' '.join(_udp(ends, there))}", says="ready")


def _rounds(lab: Lab) -> None:
    talk = Talk(lab)
    began = time.monotonic()
    for number in range(ROUNDS):
        due = began + number * ROUND_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))
        _ping(lab)
        if number == 0:
            _begin(lab, talk)
        if number == CALL:
            talk.begin("client", "nc", Ends(4).of("server"), str(services.ECHO_PORT), first_line=CALL)
        talk.say(number)
        for when, here, there, families in PAGES:
            if when == number:
                for family in families:
                    _fetch(lab, here, Ends(family), there)
        if time.monotonic() - due > LATEST_SECONDS:
            raise LabError(f"round {number} was late: this machine is too busy to record now")
    time.sleep(REST_SECONDS)


def _begin(lab: Lab, talk: Talk) -> None:
    for family in (4, 6):
        ends = Ends(family)
        # It keeps its one connection.
        lab.start("server", "redis-cli", "-h", ends.of("partner"), "-r", "-1", "-i", str(ROUND_SECONDS), "PING")
        talk.begin("partner", *ssh(lab, ends.of("server"), "cat"), first_line=FIRST_LINE)
        talk.begin("partner", *_udp(ends, "server"), first_line=1)
        talk.begin("server", *_udp(ends, "partner"), first_line=1)
    ends = Ends(4)
    talk.begin("partner", *_udp(ends, "client"), first_line=1)
    # Nobody answers a log.
    talk.begin("partner", "socat", "-u", "STDIN", f"UDP4:{ends.of('server')}:{LOG_PORT}", first_line=1)


def _ping(lab: Lab) -> None:
    """One query each, always with the same identifier. A ping that goes on by itself loses half a second in thirty."""
    for identifier, (here, there, family) in enumerate(PINGS, 1):
        lab.start(here, "ping", "-n", "-c", "1", "-W", "1", "-e", str(identifier), Ends(family).of(there))


def _udp(ends: Ends, there: str) -> tuple[str, ...]:
    address = f"[{ends.of(there)}]" if ends.family == 6 else ends.of(there)
    return ("socat", "-t", "0.5", "STDIO", f"UDP{ends.family}:{address}:{services.ECHO_PORT}")


def _fetch(lab: Lab, here: str, ends: Ends, there: str) -> None:
    url = ends.url("http", ends.of(there), f"/{services.PAGE}")
    lab.start(here, "curl", "-s", "--noproxy", "*", "--max-time", "1", "-o", "/dev/null", url)


def main() -> None:
    parser = argparse.ArgumentParser(description="Records programs that talk for half a minute.")
    parser.add_argument("output", type=Path, help="an existing directory")
    arguments = parser.parse_args()
    recorder.check(parser, arguments.output, PROGRAMS)
    recorder.run(parser, LIMIT_SECONDS, lambda: record(arguments.output))


if __name__ == "__main__":
    main()
