"""Fragments (SPEC 9.4), hazard by hazard: engine and reference model say of each packet what its table says.

A line is ``[@TIME] DATAGRAM PIECE [OPTION=NUMBER ...] -> SAID``: a piece as ``datagrams`` spells it, or ``whole``. The
options are those of ``frames.ipv4`` and ``frames.ipv6``, and ``captured``: where the capture cut the frame.
Times, ``apply`` and what is said are as in ``scenario``. ``finish`` gives up what waits. ``told NUMBERS -> SAID`` is
what became of pending packets by then; the table says so of all of them, and says what is told when.
"""

from __future__ import annotations

from typing import Any

import frames as f
import pytest
from datagrams import ANSWERS, HAZARDS, Datagram
from peers_and_filter import INSTANCES, OPEN_OUT, vpcs
from scenario import (
    START_NS,
    STRANGERS,
    Changes,
    Said,
    fits,
    from_engine,
    from_reference,
    policy_of,
    read_expected,
    read_time,
    spelled,
)

from sgfast.engine import Engine
from sgfast.policy.changes import AddRule, RemoveInstance, RemoveRule
from sgfast.policy.model import Policy, Rule
from sgfast.reference import fragments as reference_fragments
from sgfast.reference.engine import ReferenceEngine

PORT_80 = "protocol: udp, ports: 80}, {id: in6, direction: inbound, ethertype: IPv6, protocol: udp, ports: 80"
POLICY = f"""
security_groups:
  - {{name: w, rules: [{{id: in, direction: inbound, {PORT_80}}}]}}
  - {{name: d, rules: [{OPEN_OUT}]}}
{INSTANCES}"""
#: 64 bytes of UDP to a port that is open, and to one that is not.
OPEN, SHUT = f.udp(4000, 80, bytes(56)), f.udp(4000, 81, bytes(56))
ADDRESSES = {
    "web": ("10.0.0.5", "2001:db8::5"), "db": ("10.0.0.6", "2001:db8::6"), "red": ("10.1.0.5", ""),
    "green": ("10.3.0.5", ""), **STRANGERS,
}  # fmt: skip
#: By name, how a datagram differs from ``a``, which client sends to web's port 80.
DATAGRAMS: dict[str, dict[str, Any]] = {
    "a": {}, "b": {"identification": 8}, "c": {"identification": 9}, "d": {"identification": 10},
    "far": {"identification": 0x10007},
    "shut": {"layer": SHUT, "identification": 11},
    "other": {"src": "other"}, "to-db": {"dst": "db"}, "from-db": {"src": "db"},
    "web-to-db": {"src": "web", "dst": "db"}, "red-to-green": {"src": "red", "dst": "green"},
    "reply": {"layer": f.udp(80, 4000), "src": "web", "dst": "client"},
    "reply-of-shut": {"layer": f.udp(81, 4000, bytes(56)), "src": "web", "dst": "client"},
    "protocol-50": {"layer": f.Layer(bytes(OPEN), 50)}, "protocol-60": {"layer": f.Layer(bytes(OPEN), 60)},
    "tcp": {"layer": f.tcp(1, 80, "S", bytes(44))},
    "overrun": {"before": [f.extension(60, claimed_size=800)]},
    "extended": {"before": [f.extension(0), f.extension(43, 16)], "behind": [f.extension(60, 16)]},
    "long-behind": {"behind": [f.extension(60, 32)]}, "long-before": {"before": [f.extension(0, 64)]},
    "after-atomic": {"before": [f.fragment(identification=9)]},
    "around-first": {"behind": [f.fragment(0, True, 9)]}, "around-later": {"behind": [f.fragment(3, False, 9)]},
}  # fmt: skip
CHANGES: Changes = {
    "no-rule": [RemoveRule("w", "in"), RemoveRule("w", "in6")], "no-web": RemoveInstance("web"),
    "more": [AddRule("w", Rule(f"later{family}", "inbound", family, 17, ((81, 81),))) for family in (4, 6)],
}  # fmt: skip
FRAMES = {"arp": f.ethernet(bytes(28), 0x0806), "nothing": b""}


class Fast:
    def __init__(self, policy: Policy, **options: Any) -> None:
        self.engine = Engine(policy, **options)

    def give(self, now: int, frame: bytes, wire_length: int) -> Said:
        return from_engine(self.engine, self.engine.process_frames([frame], [now], wire_lengths=[wire_length])[0])

    def take(self, *, everything: bool = False) -> dict[int, Said]:
        late = self.engine.resolved(everything=everything)
        return {int(number): from_engine(self.engine, row) for number, row in late}


class Slow:
    def __init__(self, policy: Policy, **options: Any) -> None:
        self.engine = ReferenceEngine(policy, **options)

    def give(self, now: int, frame: bytes, wire_length: int) -> Said:
        return from_reference(self.engine.process_frame(now, frame, wire_length=wire_length))

    def take(self, *, everything: bool = False) -> dict[int, Said]:
        if everything:
            self.engine.finish()
        return {number: from_reference(verdict) for number, verdict in self.engine.resolved()}


def packet(words: list[str], family: int) -> tuple[bytes, int]:
    """A frame as far as it was captured, and its length on the wire."""
    if words[0] in FRAMES:
        return FRAMES[words[0]], len(FRAMES[words[0]])
    name, piece, *more = words
    options: dict[str, Any] = {key: int(value) for key, _, value in (option.partition("=") for option in more)}
    captured = options.pop("captured", None)
    if "options" in options:
        options["options"] = bytes(options["options"])
    fields: dict[str, Any] = {"src": "client", "dst": "web", "layer": OPEN} | DATAGRAMS[name]
    for end in ("src", "dst"):
        fields[end] = ADDRESSES[fields[end]][family == 6]
    whole = Datagram(**fields)
    frame = f.ethernet(whole.whole() if piece == "whole" else whole.piece(piece, **options))
    return frame[:captured], len(frame)


def play(script: str, family: int, policy: str = POLICY, kinds: Any = (Fast, Slow), **options: Any) -> None:
    those = [kind(policy_of(policy), **options) for kind in kinds]
    now, number = START_NS, 0
    pending: set[int] = set()
    untold: dict[int, Said] = {}

    def same(answers: list[Any]) -> Any:
        assert all(answer == answers[0] for answer in answers), (line, answers)
        return answers[0]

    for line in filter(None, map(str.strip, script.splitlines())):
        what, _, wanted = map(str.strip, line.partition("->"))
        words = what.split()
        if words[0].startswith("@"):
            now = read_time(words.pop(0)[1:], START_NS)
        said = []
        if words[0] == "told":
            said = [untold.pop(int(word)) for word in words[1:]]
            pending -= {*map(int, words[1:])}
        elif words[0] != "#":
            assert not untold, (line, "nobody said that this is told before", untold)
            if words[0] == "apply":
                for each in those:
                    each.engine.apply(CHANGES[words[1]], now)
            elif words[0] != "finish":
                number += 1
                said = [same([each.give(now, *packet(words, family)) for each in those])]
                pending |= {number for each in said if each[""] == ("pending",)}
            untold = same([each.take(everything=words[0] == "finish") for each in those])
        for each in said:
            assert fits(each, read_expected(wanted)), (line, spelled(each))
    assert not untold and not pending, (untold, pending)


#: In which families, and what comes.
SCRIPTS: dict[str, tuple[tuple[int, ...], str]] = {
    "identification, addresses and direction tell datagrams apart": ((4, 6), """
        a 0-24+       -> allow rule
        b 24-64       -> pending
        other 24-64   -> pending
        to-db 24-64   -> pending
        reply 8-16    -> pending
        a 24-64       -> allow rule
        finish
        told 2 3 4 5  -> deny fragment
    """),
    "IPv4: so do protocols": ((4,), """
        a 0-24+           -> allow rule
        protocol-50 24-64 -> pending
        finish
        told 2            -> deny fragment
    """),
    "IPv6: protocols do not, and identifications have 32 bits": ((6,), """
        a 0-24+           -> allow rule
        far 24-64         -> pending
        protocol-60 24-64 -> allow rule
        finish
        told 2            -> deny fragment
    """),
    "a packet that is no fragment is none of the datagram": ((4, 6), """
        a 24-64 -> pending
        # in IPv6 with a fragment header
        a 0-64  -> allow rule
        finish
        told 1  -> deny fragment
    """),
    "a first one after 30 s is too late, and begins anew": ((4, 6), """
        @0  a 24-48+ -> pending
        @29 a 48-64  -> pending
        @30 a 0-24+  -> allow rule
        told 1 2     -> deny fragment
        @31 a 24-64  -> allow rule
    """),
    "a first one a nanosecond before that is in time": ((4, 6), """
        @0      a 24-64 -> pending
        @30-1ns a 0-24+ -> allow rule
        told 1          -> allow rule
    """),
    "any packet shows that the time is over": ((4, 6), """
        @0  a 24-64       -> pending
        @29 b 24-64       -> pending
        @30 arp           -> not-ip
        told 1            -> deny fragment
        @59 nothing       -> deny malformed
        told 2            -> deny fragment
    """),
    "verdict and contradiction are forgotten 30 s after the earliest fragment": ((4, 6), """
        @0  a 24-48+ -> pending
        @0  b 24-48+ -> pending
        @10 b 32-64  -> deny fragment
        told 2       -> deny fragment
        @20 a 0-24+  -> allow rule
        told 1       -> allow rule
        @29 a 24-48+ -> allow rule
        @29 b 0-24+  -> deny fragment
        @30 a 48-64  -> pending
        @30 b 0-24+  -> allow established
        finish
        told 7       -> deny fragment
    """),
    "time is the clock's, which may fall back, and not the packets'": ((4, 6), """
        @1000 a 24-64  -> pending
        @0    a 16-24+ -> pending
        @29   b 0-24+  -> allow rule
        @30   a 0-16+  -> allow established
        told 1 2       -> deny fragment
    """),
    "a first one without all of its transport header, and one that the capture cut": ((4, 6), """
        tcp 8-64              -> pending
        tcp 0-8+              -> deny malformed
        told 1                -> deny malformed
        b 24-64               -> pending
        b 0-24+ captured=-20  -> deny truncated
        told 3                -> deny truncated
    """),
    "lengths are those on the wire, not what was captured": ((4, 6), """
        a 24-48+ captured=62 -> pending
        a 0-24+ captured=70  -> allow rule
        told 1               -> allow rule
        a 48-64 captured=62  -> allow rule
        # it was whole
        a 24-48+ captured=62 -> pending
        finish
        told 4               -> deny fragment
    """),
    "sides and rules are the first one's": ((4,), """
        from-db 24-48+ -> pending
        from-db 0-24+  -> allow rule in; egress allow rule d/outbound/1; ingress allow rule in
        told 1         -> allow rule in; egress allow rule d/outbound/1; ingress allow rule in
    """),
    "what is given up stands on the first side there is by then": ((4, 6), """
        web-to-db 24-64 -> pending
        to-db 24-64     -> pending
        a 24-64         -> pending
        finish
        told 1          -> deny fragment; egress deny fragment; ingress -
        told 2 3        -> deny fragment; egress -; ingress deny fragment
        a 24-64         -> pending
        apply no-web
        finish
        told 4          -> out-of-scope
    """),
    "what is overdue when its judge is removed stands on the judge's side": ((4, 6), """
        @0  a 24-64      -> pending
        @30 apply no-web
        told 1           -> deny fragment; ingress deny fragment
    """),
    "neither a duplicate of the first one, nor a later one, nor one that contradicts is judged": ((4, 6), """
        @0  a 0-24+     -> allow rule
        @29 a 0-24+     -> allow rule
        @29 a 24-48+    -> allow rule
        @30 reply whole -> deny no-rule
        shut 16-64      -> pending
        shut 0-24+      -> deny fragment
        told 5          -> deny fragment
    """),
    "what waits meets the rules of the first one's time, and a verdict that was given stays": ((4, 6), """
        shut 24-48+ -> pending
        apply more
        shut 0-24+  -> allow rule
        told 1      -> allow rule
        a 0-24+     -> allow rule
        apply no-rule
        a 24-48+    -> allow rule
        apply no-web
        a 48-64     -> allow rule; ingress allow rule
        shut 48-64  -> allow rule; ingress allow rule
    """),
    "none ends beyond the longest datagram": ((4, 6), """
        b 65528-65536+ -> deny malformed
        c 65528-65536  -> deny malformed
    """),
    "IPv4: headers count, and options make no other fragment": ((4,), """
        a 65512-65516            -> deny malformed
        c 65488-65499 options=20 -> deny malformed
        b 24-64 options=8        -> pending
        b 24-64                  -> pending
        b 65488-65499 options=16 -> deny fragment
        told 3 4                 -> deny fragment
    """),
    "IPv6: headers do not": ((6,), """
        long-before 65520-65535 -> pending
        finish
        told 1                  -> deny fragment
    """),
    "IPv4: a header that contradicts itself is none of the datagram, and no length is the rest": ((4,), """
        a 24-64 header_words=4  -> deny malformed
        a 24-64 total_length=19 -> deny malformed
        a 24-64 total_length=61 -> deny malformed
        a 0-24+ total_length=0  -> allow rule
        a 24-64 total_length=0  -> allow rule
    """),
    "IPv6: neither are headers that overrun, or were not captured": ((6,), """
        overrun 24-64              -> deny malformed
        a 24-64 payload_length=500 -> deny malformed
        a 24-64 captured=61        -> deny truncated
        a 0-24+                    -> allow rule
        a 24-64                    -> allow rule
    """),
    "IPv6: extension headers on either side of the fragment header": ((6,), """
        extended 48-80    -> pending
        extended 0-24+    -> allow rule
        told 1            -> allow rule
        extended 24-48+   -> allow rule
        long-behind 24-96 -> pending
        long-behind 0-24+ -> deny malformed
        told 4            -> deny malformed
    """),
    "IPv6: a fragment header in front of a fragment header": ((6,), """
        after-atomic 24-64 -> pending
        after-atomic 0-24+ -> allow rule
        told 1             -> allow rule
        # behind it, of the inner datagram nothing is remembered
        around-later 24-72 -> pending
        around-later 0-24+ -> deny fragment
        told 3             -> deny fragment
        around-first 24-72 -> pending
        around-first 0-24+ -> allow established
        told 5             -> allow established
        c 24-64            -> pending
        finish
        told 7             -> deny fragment
    """),
}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("hazard", HAZARDS)
def test_pieces_of_a_datagram(family: int, hazard: str) -> None:
    pieces, at_once, in_the_end = HAZARDS[hazard]
    for kind in (Fast, Slow):
        judge = kind(policy_of(POLICY))
        said = [judge.give(START_NS, *packet(["a", piece], family))[""] for piece in pieces.split()]
        assert [" ".join(words[:2]) for words in said] == [ANSWERS[letter] for letter in at_once]
        for number, late in judge.take(everything=True).items():
            said[number - 1] = late[""]
        assert [" ".join(words[:2]) for words in said] == [ANSWERS[letter] for letter in in_the_end]


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_hazard_of_fragments(name: str) -> None:
    families, script = SCRIPTS[name]
    for family in families:
        play(script, family)


def test_later_fragments_are_moot_with_their_first_and_keep_nothing_moot() -> None:
    play("""
        @0      shut 0-24+          -> deny no-rule
        @29     shut 24-48+         -> deny no-rule
        @29     reply-of-shut 24-64 -> pending
        @30-1ns reply-of-shut 0-24+ -> moot opener-denied
        told 3                      -> moot opener-denied
        @60     reply-of-shut whole -> deny no-rule
    """, 4, mode="causal")  # fmt: skip


def test_later_fragments_of_what_needs_no_connection_are_judged_as_their_first() -> None:
    """By itself a later fragment has no port to match a rule with."""
    play("""
        a 24-64    -> pending
        a 0-24+    -> allow rule
        told 1     -> allow rule
        shut 0-24+ -> deny no-rule
    """, 4, POLICY.replace("name: w,", "name: w, stateful: false,"))  # fmt: skip
    play("""
        red-to-green 24-64 -> pending
        red-to-green 0-24+ -> deny vpc-isolated; egress deny vpc-isolated; ingress -
        told 1             -> deny vpc-isolated; egress deny vpc-isolated; ingress -
    """, 4, vpcs())  # fmt: skip


@pytest.mark.parametrize(("limit", "most", "script"), [
    ("FRAGMENT_DATAGRAMS", 2, """
        a 24-64   -> pending
        b 24-64   -> pending
        # more of those that are known make nobody leave; nor does what is whole
        b 0-24+   -> allow rule
        told 2    -> allow rule
        c 24-64   -> pending
        d 24-64   -> pending
        told 1    -> deny fragment
        finish
        told 4 5  -> deny fragment
    """),
    ("FRAGMENT_RANGES", 4, """
        a 24-32+  -> pending
        a 24-32+  -> pending
        b 24-32+  -> pending
        b 32-40+  -> pending
        b 40-64   -> pending
        told 1 2  -> deny fragment
        b 0-24+   -> allow rule
        told 3 4 5 -> allow rule
    """),
    # Duplicates of what is judged take no room, nor does what contradicts itself, which is remembered.
    ("FRAGMENT_RANGES", 3, """
        a 0-24+  -> allow rule
        a 24-32+ -> allow rule
        a 24-32+ -> allow rule
        a 0-24+  -> allow rule
        b 24-64  -> pending
        a 24-40+ -> deny fragment
        b 24-64  -> pending
        b 24-64  -> pending
        a 0-24+  -> deny fragment
        finish
        told 5 7 8 -> deny fragment
    """),
])  # fmt: skip
def test_reference_remembers_no_more_than_it_may(
    limit: str, most: int, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_fragments, limit, most)
    play(script, 4, kinds=(Slow,))


def test_bounds_are_those_agreed_on() -> None:
    bounds = reference_fragments.FRAGMENT_SECONDS, reference_fragments.FRAGMENT_DATAGRAMS
    assert (*bounds, reference_fragments.FRAGMENT_RANGES) == (30, 4096, 65536)
