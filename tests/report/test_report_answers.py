"""Answers of the other end, and what would break: the part of a report that an engineer acts on (SPEC 10.4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import write_capture, write_policy
from frames import ethernet, icmp, icmp_error, ip, other, tcp, udp

from sgfast import replay
from sgfast.report.lines import ConnectionLines

WEB, CLIENT = "10.0.0.5", "198.51.100.7"
DOCUMENT = """
version: 1
security_groups:
  - name: web
    rules:
      - {direction: inbound, protocol: tcp, ports: 80, source: 0.0.0.0/0}
      - {direction: inbound, protocol: udp, ports: 53, source: 0.0.0.0/0}
instances:
  - {name: web-1, addresses: [10.0.0.5], security_groups: [web]}
"""


def to_web(layer: bytes) -> bytes:
    return ethernet(ip(CLIENT, WEB, layer))


def to_client(layer: bytes) -> bytes:
    return ethernet(ip(WEB, CLIENT, layer))


def refusal(refused: bytes, code: int = 3) -> bytes:
    """A port (or with code 4, a size) unreachable from web-1 about a frame it got."""
    return to_client(icmp_error(3, code, refused[14:]))


SYN, DATA = to_web(tcp(40000, 80, "S")), to_web(tcp(40000, 80, "A"))
QUERY, ANSWER = to_web(udp(4000, 53)), to_client(udp(53, 4000))
DENIED_QUERY, DENIED_ANSWER = to_web(udp(4000, 54)), to_client(udp(54, 4000))
RESET = to_client(tcp(80, 40000, "RA"))
PING = to_web(icmp(8))

CASES: dict[str, tuple[list[bytes], str]] = {
    "an answer after an unreachable is an answer": ([QUERY, refusal(QUERY), ANSWER], "answered"),
    "an unreachable alone is a refusal": ([QUERY, refusal(QUERY)], "refused"),
    "fragmentation needed refuses nothing": ([QUERY, refusal(QUERY, 4)], "silent"),
    "a reset alone is a refusal": ([SYN, RESET], "refused"),
    "an older connection of one packet was not answered": ([DATA], "silent"),
    "an older connection that is reset was refused": ([DATA, RESET], "refused"),
    "an older connection seen both ways was answered": ([DATA, to_client(tcp(80, 40000, "A"))], "answered"),
    "a denied query that was refused": ([DENIED_QUERY, refusal(DENIED_QUERY)], "refused"),
    "a denied query that was answered": ([DENIED_QUERY, DENIED_ANSWER], "answered"),
    "peers that open independently and are denied": ([to_web(udp(123, 123)), to_client(udp(123, 123))], "answered"),
    "a denied ping that was answered": ([PING, to_client(icmp(0))], "answered"),
    "a denied ping that was refused": ([PING, refusal(PING)], "refused"),
    "a denied ping of another code that was answered": ([to_web(icmp(8, 1)), to_client(icmp(0, 1))], "answered"),
    "a denied tunnel": ([to_web(other(47)), to_client(other(47))], "answered"),
    "a denied older connection": (
        [to_web(tcp(40000, 5432, "PA")), to_client(tcp(5432, 40000, "PA")), to_web(tcp(40000, 5432, "A"))], "answered",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["causal", "verbatim"])
@pytest.mark.parametrize("case", CASES)
def test_what_the_other_end_did(tmp_path: Path, case: str, mode: Any) -> None:
    frames, answer = CASES[case]
    policy, capture = write_policy(tmp_path, DOCUMENT), write_capture(tmp_path, *frames)
    lines: list[bytes] = []
    told = replay(policy, capture, mode=mode, flows=ConnectionLines(lines.append))
    rows = [json.loads(line) for line in b"".join(lines).splitlines()]
    assert [row["answer"] for row in rows] == [answer], rows
    quiet = replay(policy, capture, mode=mode)
    # With or without the connection report, the summary says the same.
    assert (quiet.kinds, quiet.connections) == (told.kinds, told.connections)
    breaks = list(quiet.tables.would_break)
    assert [row["packets"] > 0 for row in breaks] == [True] * len(breaks), "in another row than the denied packets"
    denied = rows[0]["verdict"] == "deny"
    assert [b.connections for b in quiet.broken] == ([1] if denied and answer == "answered" else [])
    assert [u.answer for u in quiet.unanswered] == ([answer] if not denied and answer != "answered" else [])


def test_all_that_end_together_count(tmp_path: Path) -> None:
    """They are looked up in groups, and only some of them were not answered."""
    queries = [(to_web(udp(port, 53)), to_client(udp(53, port))) for port in range(4000, 4150)]
    frames = [frame for n, (query, answer) in enumerate(queries) for frame in ([query, answer] if n % 3 else [query])]
    told = replay(write_policy(tmp_path, DOCUMENT), write_capture(tmp_path, *frames))
    assert [(row.answer, row.connections) for row in told.unanswered] == [("silent", 50)]


TWO_ENDS = """
version: 1
security_groups:
  - {name: in, rules: [{direction: inbound, protocol: all}]}
  - {name: out, rules: [{direction: outbound, protocol: all}]}
instances:
  - {name: quiet, addresses: [10.0.0.5], security_groups: [in]}
  - {name: open, addresses: [10.0.0.6, 224.0.0.0/4], security_groups: [in, out]}
"""


def test_an_answered_call_that_the_callers_own_filter_denied_is_told_of_the_caller(tmp_path: Path) -> None:
    """The other end is an instance, too, whose filter allows the call."""
    call, answer = (ethernet(ip(*ends, layer)) for ends, layer in (
        (("10.0.0.5", "10.0.0.6"), udp(4000, 53)), (("10.0.0.6", "10.0.0.5"), udp(53, 4000)),
    ))  # fmt: skip
    told = replay(write_policy(tmp_path, TWO_ENDS), write_capture(tmp_path, call, answer))
    assert [row.service.instance for row in told.broken] == ["quiet"]


def test_a_multicast_address_of_an_instance_leaves_nothing_unanswered(tmp_path: Path) -> None:
    """As a destination it is no instance (SPEC 3.3), so none failed to answer."""
    frames = [ethernet(ip("10.0.0.6", to, udp(5353, 5353))) for to in ("224.0.0.251", "10.0.0.5")]
    told = replay(write_policy(tmp_path, TWO_ENDS), write_capture(tmp_path, *frames))
    assert told.connections["opened"] == 2
    assert [row.service.instance for row in told.unanswered] == ["quiet"]


def test_moot_answers_belong_to_the_attempt_and_a_call_the_other_way_does_not(tmp_path: Path) -> None:
    there, back = to_web(udp(123, 123)), to_client(udp(123, 123))
    (row,) = connection_rows(tmp_path, there, back, there, back, back)
    counted = ("verdict", "answer", "packets_from_initiator", "packets_from_responder")
    assert [row[field] for field in counted] == ["deny", "answered", 2, 3]
    told = replay(tmp_path / "policy.yaml", tmp_path / "some.pcap")
    assert (told.verdicts["deny"], told.verdicts["moot"], sum(kind.packets for kind in told.denied)) == (2, 3, 2)
    outbound = DOCUMENT.replace("rules:", "rules:\n      - {direction: outbound, protocol: udp}", 1)
    policy, lines = write_policy(tmp_path, outbound), list[bytes]()
    capture = write_capture(tmp_path, there, back, there, back)
    told = replay(policy, capture, flows=ConnectionLines(lines.append))
    rows = sorted((json.loads(line) for line in b"".join(lines).splitlines()), key=lambda row: row["first_time"])
    assert [[row[field] for field in ("initiator", *counted)] for row in rows] == [
        [CLIENT, "deny", "answered", 2, 2],
    ]
    # Each packet is answered within a second, so the exchange breaks.
    assert [row.connections for row in told.broken] == [1]
    assert (told.connections["opened"], told.connections["denied"]) == (0, 1)


@pytest.mark.parametrize(("near", "far"), [("10.0.0.5", "10.0.0.6"), ("10.0.0.6", "10.0.0.5")])
def test_call_the_other_way_is_told_alike_with_and_without_the_connection_report(
    tmp_path: Path, near: str, far: str
) -> None:
    """Either instance lets everything out and nothing in. The third packet is a call, as the second one was the answer.
    To the filter that let the first packet out, it is an answer, so it arrives; nobody answers it."""
    policy = write_policy(tmp_path, """
version: 1
security_groups: [{name: out, rules: [{direction: outbound, protocol: all}]}]
instances:
  - {name: low, addresses: [10.0.0.5], security_groups: [out]}
  - {name: high, addresses: [10.0.0.6], security_groups: [out]}
""")
    pairs = ((near, far), (far, near), (far, near))
    capture = write_capture(tmp_path, *(ethernet(ip(*ends, udp(123, 123))) for ends in pairs))
    told, quiet = replay(policy, capture, flows=ConnectionLines(lambda _: None)), replay(policy, capture)
    assert (quiet.broken, quiet.unanswered) == (told.broken, told.unanswered)
    assert [row.service.instance for row in quiet.unanswered] == ["low" if near == "10.0.0.5" else "high"]


def connection_rows(tmp_path: Path, *frames: bytes, settings: str = "{}") -> list[dict[str, Any]]:
    """Return the lines of ``--connections`` about frames that come a millisecond apart."""
    policy = write_policy(tmp_path, f"{DOCUMENT}settings: {settings}\n")
    lines: list[bytes] = []
    replay(policy, write_capture(tmp_path, *frames), flows=ConnectionLines(lines.append))
    return [json.loads(line) for line in b"".join(lines).splitlines()]


# Lower and higher than web-1's address: which end a table entry has first is decided by that.
@pytest.mark.parametrize("client", ["1.0.0.7", CLIENT])
@pytest.mark.parametrize("port", [53, 54], ids=["allowed", "denied"])
def test_packets_and_bytes_are_those_of_their_direction(tmp_path: Path, client: str, port: int) -> None:
    there = ethernet(ip(client, WEB, udp(4000, port, bytes(100))))
    back = ethernet(ip(WEB, client, udp(port, 4000, bytes(7))))
    (row,) = connection_rows(tmp_path, there, there, back, there)
    assert (row["initiator"], row["initiator_port"], row["responder"]) == (client, 4000, WEB)
    assert (row["packets_from_initiator"], row["bytes_from_initiator"]) == (3, 3 * len(there))
    assert (row["packets_from_responder"], row["bytes_from_responder"]) == (1, len(back))


HANDSHAKE = [SYN, to_client(tcp(80, 40000, "SA")), DATA]
FINS = [to_web(tcp(40000, 80, "FA")), to_client(tcp(80, 40000, "FA"))]
ENDINGS: dict[str, tuple[list[bytes], str]] = {
    "both said good-bye": ([*HANDSHAKE, *FINS, DATA], "closed"),
    "one said good-bye": ([*HANDSHAKE, FINS[0]], "open"),
    "in the middle of it": (HANDSHAKE, "open"),
    "reset": ([*HANDSHAKE, RESET], "reset"),
    "refused": ([SYN, RESET], "reset"),
    "fell silent": ([QUERY, *HANDSHAKE], "timeout"),
    "made room": ([QUERY, to_web(udp(4001, 53)), to_web(udp(4002, 53))], "evicted"),
    "denied": ([DENIED_QUERY], "denied"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_how_it_ended(tmp_path: Path, case: str) -> None:
    frames, ended = ENDINGS[case]
    row = connection_rows(
        tmp_path, *frames, settings="{max_connections: 2, timeouts: {unidirectional: 0.003, tcp_other: 0.003}}"
    )[0]
    assert row["egress"] is None
    assert (row["ingress"]["instance"], row["ingress"]["ended"]) == ("web-1", ended)


def test_a_full_table_tells_apart_what_it_forgot(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, DOCUMENT + "settings: {max_connections: 2}\n")
    asked = [to_web(udp(4000 + n, 53)) for n in range(4)]
    denied = [to_web(udp(4000 + n, 54)) for n in range(3)]
    capture = write_capture(tmp_path, *asked, *denied)
    assert replay(policy, capture).warnings == [
        "the connection table was full: 4 unanswered connections and 1 denied attempt were forgotten early "
        "(settings.max_connections is 2)"
    ]
