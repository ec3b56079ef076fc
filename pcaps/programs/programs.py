"""What runs: every scenario is a program on one host, and what it says of how that went.

Each runs over IPv4 and over IPv6, one after the other. What a program says is put in few words, the same ones each
time it goes the same way: no times, no random ports. Waiting for an answer that a filter keeps away takes a second;
all else may take longer, so that a busy machine changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import services
from lab import HOSTS, NOBODY, TIMED_OUT, Finished, Lab

#: For a whole program.
SECONDS = 8.0


@dataclass(frozen=True)
class Ends:
    """Addresses of one family."""

    family: int

    def of(self, host: str) -> str:
        return HOSTS[host].addresses[self.family]

    @property
    def nobody(self) -> str:
        return NOBODY.addresses[self.family]

    def url(self, scheme: str, address: str, rest: str) -> str:
        return f"{scheme}://[{address}]{rest}" if self.family == 6 else f"{scheme}://{address}{rest}"


@dataclass(frozen=True)
class Scenario:
    """``outcome`` runs the program and says how it went. ``tells``: whether that shows if packets got through."""

    name: str
    program: str
    outcome: Callable[[Lab, Ends], str]
    tells: bool = True


def _say(finished: Finished, pattern: str = r".+") -> str:
    """The exit status, and what of the output is worth a word."""
    if finished.status == TIMED_OUT:
        return "did not end in time"
    return " ".join([f"exit {finished.status}:", *re.findall(pattern, finished.out)]).rstrip(":")


# --- the web and files -----------------------------------------------------------------------------------------------


def _curl(lab: Lab, host: str, *arguments: str) -> str:
    """Status and bytes of each page, and how many connections it took."""
    every = ("-s", "-k", "--fail-early", "--noproxy", "*", "--connect-timeout", "1", "--max-time", "3",
             "-w", "%{http_code} %{size_download} bytes, %{num_connects} new\n")  # fmt: skip
    return _say(lab.run(host, "curl", *every, *arguments, seconds=SECONDS), r"(?m)^\d{3} .*new$")


def _page(host: str, peer: str, scheme: str, times: int = 1, port: int | None = None) -> Callable[[Lab, Ends], str]:
    def outcome(lab: Lab, ends: Ends) -> str:
        where = "" if port is None else f":{port}"
        url = ends.url(scheme, ends.of(peer), f"{where}/{services.PAGE}")
        return _curl(lab, host, *(("-o", str(lab.folder / "fetched"), url) * times))

    return outcome


def _unanswered(lab: Lab, ends: Ends) -> str:
    # Ends before the opener is sent again, which takes a second.
    patience = ("--connect-timeout", "0.6")
    return _curl(lab, "client", *patience, "-o", str(lab.folder / "fetched"), ends.url("http", ends.nobody, "/"))


def _ftp_active(lab: Lab, ends: Ends) -> str:
    # The server calls back: to this address, at the first free port of these.
    here = f"{ends.url('x', ends.of('client'), '').removeprefix('x://')}:{services.FTP_ACTIVE_PORTS}"
    return _curl(lab, "client", "--ftp-port", here, *_file(lab, ends))


def _ftp_passive(lab: Lab, ends: Ends) -> str:
    return _curl(lab, "client", "--ftp-pasv", *_file(lab, ends))


def _file(lab: Lab, ends: Ends) -> tuple[str, ...]:
    return ("-o", str(lab.folder / "fetched"), ends.url("ftp", ends.of("server"), f"/{services.FILE}"))


# --- logging in, the database, counting ------------------------------------------------------------------------------


def ssh(lab: Lab, address: str, *command: str) -> tuple[str, ...]:
    """The command line of an ssh client."""
    options = ("BatchMode=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={lab.folder}/known_hosts",
               "IdentitiesOnly=yes", "LogLevel=ERROR", "ConnectTimeout=1")  # fmt: skip
    return ("ssh", "-F", "none", "-i", str(services.client_key(lab)), *(f"-o{option}" for option in options),
            f"root@{address}", *command)  # fmt: skip


def _ssh(lab: Lab, ends: Ends) -> str:
    return _say(lab.run("client", *ssh(lab, ends.of("server"), "echo welcome"), seconds=SECONDS), "welcome")


def _redis(lab: Lab, ends: Ends) -> str:
    command = ("redis-cli", "-h", ends.of("server"), "-t", "0.8", "SET", "apples", "42")
    return _say(lab.run("client", *command, seconds=SECONDS), "OK")


def _half_closed(lab: Lab, ends: Ends) -> str:
    """The server answers only after the client has closed its half."""
    command = ("nc", "-N", "-w", "1", ends.of("server"), str(services.COUNT_PORT))
    return _say(lab.run("client", *command, seconds=SECONDS, given="fourteen bytes"))


# --- names and time --------------------------------------------------------------------------------------------------


def _dig(peer: str, *arguments: str) -> Callable[[Lab, Ends], str]:
    def outcome(lab: Lab, ends: Ends) -> str:
        ask = ("dig", "+time=1", "+tries=1", "+short", *arguments, f"@{ends.of(peer)}", services.NAME)
        return _say(lab.run("client", *ask, seconds=SECONDS), r"(?m)^\d[\d.]+$|connection refused|timed out")

    return outcome


def _ntp(lab: Lab, ends: Ends) -> str:
    """Asks for the time once, from a port of its own, as a client."""
    command = ("chronyd", "-Q", "-t", "2", "-u", "root", f"server {ends.of('partner')} iburst maxsamples 1",
               f"pidfile {lab.folder}/asking.pid")  # fmt: skip
    return _say(lab.run("client", *command, seconds=SECONDS), "System clock wrong|Timeout reached")


def _ntp_peers(lab: Lab, ends: Ends) -> str:
    """Two time daemons, each sending from port 123 to port 123. First only the client speaks, then only the server."""
    name = f"peer{ends.family}"
    pairs = {"client": "server", "server": "client"}
    commands = {
        host: services.time_daemon(lab, host, name, f"peer {ends.of(other)} offline minpoll -1 maxpoll -1")
        for host, other in pairs.items()
    }
    heard = []
    with lab.running("server", *commands["server"]), lab.running("client", *commands["client"]):
        for host in pairs:
            lab.wait_until(host, *services.time_control(lab, host, name, "sources"))
        for speaker, listener in pairs.items():
            lab.run(speaker, *services.time_control(lab, speaker, name, "online"), seconds=SECONDS)
            heard.append(f"{listener} heard {speaker}: {_heard(lab, listener, name)}")
            lab.run(speaker, *services.time_control(lab, speaker, name, "offline"), seconds=SECONDS)
    return ", ".join(heard)


def _heard(lab: Lab, host: str, name: str) -> str:
    """Whether a time daemon receives something from its peer; they send about once a second."""
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        data = lab.run(host, *services.time_control(lab, host, name, "ntpdata"), seconds=SECONDS)
        if re.search(r"(?m)^Total RX\s*: [1-9]", data.out):
            return "yes"
        time.sleep(0.1)
    return "no"


# --- ping, traceroute, throughput ------------------------------------------------------------------------------------


def _ping(host: str, peer: str) -> Callable[[Lab, Ends], str]:
    def outcome(lab: Lab, ends: Ends) -> str:
        command = ("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", ends.of(peer))
        return _say(lab.run(host, *command, seconds=SECONDS), r"\d+ received")

    return outcome


def _traceroute(lab: Lab, ends: Ends) -> str:
    """The router and the partner, by their addresses."""
    command = ("traceroute", "-n", "-q", "1", "-N", "1", "-w", "1", "-m", "2", ends.of("partner"))
    return _say(lab.run("client", *command, seconds=SECONDS), r"(?m)^ *\d+  +(\S+)")


def _iperf3(*arguments: str) -> Callable[[Lab, Ends], str]:
    def outcome(lab: Lab, ends: Ends) -> str:
        with lab.running("server", "iperf3", "-s", "-1"):
            lab.wait_listening("server", "tcp", 5201)
            command = ("iperf3", "-c", ends.of("server"), "--connect-timeout", "1000", *arguments)
            # It waits for its data connection without a time limit.
            return _say(lab.run("client", *command, seconds=4), "iperf Done")

    return outcome


SCENARIOS = (
    Scenario("http", "curl to nginx", _page("client", "server", "http")),
    Scenario("https", "curl to nginx, TLS", _page("client", "server", "https")),
    Scenario("keep-alive", "curl to nginx, three pages over one connection", _page("client", "server", "http", 3)),
    Scenario("http-in", "curl to nginx, from the partner", _page("partner", "server", "http")),
    Scenario("https-out", "curl to nginx, TLS, from the server to the partner", _page("server", "partner", "https")),
    Scenario("ssh", "ssh to sshd, one command", _ssh),
    Scenario("dns-udp", "dig to dnsmasq", _dig("partner")),
    Scenario("dns-tcp", "dig to dnsmasq over TCP", _dig("partner", "+tcp")),
    Scenario("ping", "ping, client to server", _ping("client", "server")),
    Scenario("ping-in", "ping, partner to server", _ping("partner", "server")),
    Scenario("ping-out", "ping, server to partner", _ping("server", "partner")),
    Scenario("traceroute", "traceroute with UDP, to the partner", _traceroute),
    Scenario("iperf3-tcp", "iperf3, TCP", _iperf3("-n", "20K", "-l", "4K")),
    Scenario("iperf3-udp", "iperf3, UDP", _iperf3("-u", "-k", "8", "-l", "1000", "-b", "100K")),
    Scenario("redis", "redis-cli to redis-server", _redis),
    Scenario("ftp-active", "curl to vsftpd, the server calls back", _ftp_active),
    Scenario("ftp-passive", "curl to vsftpd, the client calls again", _ftp_passive),
    Scenario("ntp", "chronyd to chronyd, as client", _ntp),
    Scenario("ntp-peers", "chronyd and chronyd, both from port 123 to port 123", _ntp_peers),
    Scenario("half-closed", "nc to socat, which answers a closed half", _half_closed),
    Scenario("refused", "curl to a port where nobody listens", _page("client", "server", "http", port=81)),
    Scenario("refused-udp", "dig to a machine without a name server", _dig("server")),
    Scenario("unanswered", "curl to an address without a machine", _unanswered, tells=False),
)
