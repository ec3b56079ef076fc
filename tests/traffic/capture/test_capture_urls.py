"""Captures of a web server that says neither how much it sends nor of what kind (SPEC 9.7, 11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from captures import count, pcap_head, pcap_record
from command import handshake, sgfast, write_policy
from growth import memory
from web import Web, serving

from sgfast.traffic.capture import open_capture

pytest.importorskip("aiohttp")

Capsys = pytest.CaptureFixture[str]
PIECE = pcap_record(bytes(1000)) * 1000


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@pytest.mark.parametrize("kind", [None, "text/html", "application/octet-stream"])
def test_a_long_answer_without_a_length_goes_through_in_little_memory(kind: str | None, web: Web) -> None:
    web.files["a.pcap"] = [pcap_head(), *[PIECE] * 40]
    if kind is not None:
        web.headers["Content-Type"] = kind
    with memory() as peak, open_capture(web.url("a.pcap")) as reader:
        count(reader)
    assert (reader.packets, reader.damage) == (40_000, None)
    assert peak() < 10_000_000 < len(PIECE) * 40
    # It is sent once, and nothing else is asked for.
    assert (web.asked, web.sent) == (["GET"], len(PIECE) * 40 + len(pcap_head()))


def test_no_more_is_taken_than_is_read(web: Web) -> None:
    web.files["a.pcap"] = [pcap_head(), *[PIECE] * 200]
    with open_capture(web.url("a.pcap")) as reader:
        assert reader.next_batch() is not None
    # Sockets buffer 10 MB or so at most.
    assert web.sent < 50_000_000 < len(PIECE) * 200


def test_command_reads_it_and_takes_no_other_name_for_a_pattern(web: Web, tmp_path: Path, capsys: Capsys) -> None:
    records = b"".join(pcap_record(frame) for frame in handshake(1000, 80))
    # A question mark begins a query, as in URLs that are signed.
    web.files["a.pcap?signature=1"] = [pcap_head() + records]
    policy = write_policy(tmp_path)
    outcome = sgfast(capsys, "replay", policy, web.url("a.pcap?signature=1"))
    assert outcome.status == 0 and "\n  3 packets, " in outcome.out
    for name in ("*.pcap", "none.pcap"):
        outcome = sgfast(capsys, "replay", policy, web.url(name))
        assert outcome.status == 2 and outcome.out == ""
        assert outcome.one_line() == (
            f"sgfast: {web.url(name)}: does not exist; check the URL, and name each capture, as patterns do not "
            "work with web servers"
        )


def test_an_answer_that_breaks_off_is_damage(web: Web) -> None:
    def broken() -> Iterator[bytes]:
        yield pcap_head() + PIECE
        raise OSError

    web.files["a.pcap"] = broken()
    with open_capture(web.url("a.pcap")) as reader:
        count(reader)
    # Data that arrived but was not read before the connection broke is lost.
    assert reader.packets <= 1000 and reader.damage is not None
    assert "reading failed" in reader.damage.cause and "\n" not in str(reader.damage)
