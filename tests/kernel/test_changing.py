"""Engine = kernel while the policy changes: rules replaced between two packets, disconnected connections marked.

What a change disconnects is ``changing``'s naive reading of SPEC 6. Tables are read as in ``scenario``, their times
are multiples of ``oracle.STEP_SECONDS``: nobody waits for them.
Longer: ``PYTHONPATH=tests/support python tests/kernel/random_traffic.py 1000000 1 changing``.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from ipaddress import ip_network

import pytest
from comparing import SECOND, START, Comparison, Turned
from conversations import Step, Turn
from effort import some
from frames import with_checksum
from oracle import Kernel, missing
from random_traffic import random_traffic
from scenario import ChangeLine, Changes, Names, as_one, fits, from_reference, policy_of, read_table, spelled
from shop_changes import DNS, HTTP, OUT, PING, TLS, TOUCH, both, handshake, on_change
from talks import PATHS, open_policy, tcp_packet, tcp_packets

from sgfast.policy.changes import AddRule, ModifyRule, RemoveRule, SetAddressGroup
from sgfast.policy.model import Policy
from sgfast.rows.verdicts import Verdict

REASON = missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"kernel oracle: {REASON}")

PACKETS = int(os.environ.get("SGFAST_KERNEL_CHANGE_PACKETS") or some(9000, 20_000))
SEED = int(os.environ.get("SGFAST_KERNEL_SEED", "3"))
LINK_HEADER = 14

GRE = both("direction: inbound, protocol: gre")
OTHER = both("direction: inbound, protocol: 253")
ALONE = f"""
security_groups:
  - {{name: w, rules: [{OUT}, {HTTP}, {DNS}, {PING}, {GRE}, {OTHER}]}}
instances:
  - {{name: web, addresses: [10.0.0.5, "2001:db8::5"], security_groups: [w]}}
"""
CHANGES: Changes = {
    "touch": TOUCH,
    "no-in": [RemoveRule("w", f"w/inbound/{n}") for n in range(1, 11)],
    "no-out": [RemoveRule("w", f"w/outbound/{n}") for n in (1, 2)],
}  # fmt: skip
FAMILIES = pytest.mark.parametrize("family", [4, 6])


def play(
    policy: Policy | str, table: str, family: int, changes: Changes | None = None, excused: dict[str, int] | None = None
) -> None:
    """Engine and kernel must say what the table says; ``excused``: by difference, of how many packets the engine alone
    must."""
    policy = policy_of(policy)
    changes = {**CHANGES, **(changes or {})}
    lines = read_table(table, Names(policy, family, changes), START, changes)
    steps: list[Step | Turn] = []
    before = START
    for line in lines:
        seconds, before = (line.time_ns - before) // SECOND, line.time_ns
        if isinstance(line, ChangeLine):
            steps.append(Turn(seconds, tuple(as_one(line.changes))))
        else:
            steps.append(Step(seconds, with_checksum(line.frame[LINK_HEADER:])))
    comparison = Comparison(policy)
    with Kernel(policy) as kernel:
        judged = comparison.run(steps, kernel)
    wrong = []
    for line, said in zip(lines, judged, strict=True):
        if isinstance(said, Turned):
            words = f"{said.by_engine} disconnected"
            if said.by_kernel != said.by_engine or line.expected not in (None, words):
                wrong.append(f"{line.text}: {said}")
        elif not fits(from_reference(said), line.expected):
            wrong.append(f"{line.text}: {spelled(from_reference(said))}")
    assert not wrong, "\n".join(wrong)
    assert comparison.hits == (excused or {})


# --- SPEC 6.3, 6.4: what is cut, and for how long


@FAMILIES
def test_cut_in_every_tcp_state_denies_until_the_deadline_and_not_longer(family: int) -> None:
    """Cut ten seconds after its last packet; whatever comes then, a SYN five seconds before the deadline is in vain and
    one at the deadline opens."""
    policy = open_policy()
    touch = Turn(10, (AddRule("open", TLS),))
    cells = [
        (name, (way, flags)) for name in PATHS for way in (0, 1) for flags in ("S", "SA", "A", "FA", "R", "", "SF")
        if name not in ("none", "refused")
    ]  # fmt: skip
    ports = dict(enumerate(cells, 1024))
    steps: list[Step | Turn] = [
        Step(0, packet) for port, (name, _) in ports.items() for packet in tcp_packets(family, True, port, PATHS[name])
    ]
    steps.append(touch)
    probes = len(steps)
    steps += [Step(0, tcp_packet(family, True, port, *probe)) for port, (_, probe) in ports.items()]
    at: dict[int, int] = {}
    now = 10
    for moment in (25, 30, 595, 600):
        at[moment] = len(steps)
        for port in ports:
            steps.append(Step(moment - now, tcp_packet(family, True, port, 0, "S")))
            now = moment
    comparison = Comparison(policy)
    with Kernel(policy) as kernel:
        judged = comparison.run(steps, kernel)
        refreshed = kernel.refreshed
    assert judged[probes - 1] == Turned(len(cells), len(cells))

    def reasons(start: int) -> list[str | None]:
        return [said.reason for said in judged[start : start + len(cells)] if isinstance(said, Verdict)]

    over = {moment: ["rule"] * len(cells) for moment in (30, 595)} | {600: ["established"] * len(cells)}
    for n, (name, _) in enumerate(cells):
        if name.startswith("ESTABLISHED"):
            over[30][n], over[595][n], over[600][n] = "disconnected", "disconnected", "rule"
    assert set(reasons(probes)) == set(reasons(at[25])) == {"disconnected"}
    for moment, wanted in over.items():
        said = reasons(at[moment])
        assert [(cells[n], wanted[n]) for n in range(len(cells)) if said[n] != wanted[n]] == [], moment
    print(f"{len(cells)} cells, {refreshed} deadlines put back; excused: {dict(comparison.hits)}")
    assert refreshed > len(cells) / 4
    assert set(comparison.hits) <= {"SYN on a cut connection that is over"}


#: By name: packets there and back, and how long a connection lives after a reply (SPEC 5.2).
PROTOCOLS = {
    "UDP": ("udp client:1024 > web:53", "udp web:53 > client:1024", 180),
    "ICMP": ("ping client > web id=7", "pong web > client id=7", 30),
    "GRE": ("gre client > web", "gre web > client", 180),
    "other": ("253 client > web", "253 web > client", 180),
}


@FAMILIES
@pytest.mark.parametrize("replied", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_cut_of_protocols_without_states_denies_until_the_deadline(protocol: str, replied: bool, family: int) -> None:
    there, back, seconds = PROTOCOLS[protocol]
    seconds = seconds if replied else 30
    answer = f"@0 {back} -> allow established\n@0 {there} -> allow established" if replied else ""
    # The same packets: by a change that leaves the rule, and by one that takes it away.
    for change, opener in (("touch", "allow rule"), ("no-in", "deny no-rule")):
        play(ALONE, f"""
            @0 {there}     -> allow rule
            {answer}
            @5 apply {change} -> 1 disconnected
            @5 {back}      -> deny disconnected
            @5 {there}     -> deny disconnected
            @{seconds - 5} {there} -> deny disconnected
            @{seconds - 5} {back}  -> deny disconnected
            @{seconds} {there}     -> {opener}
        """, family)  # fmt: skip


# --- SPEC 6.2, 6.5: new connections, and outbound ones


@FAMILIES
def test_unanswered_connections_persist_although_linux_asks_the_rules_again(family: int) -> None:
    play(ALONE, """
        @0  tcp web:1 > other:80 S  -> allow rule
        @0  udp web:1 > other:53    -> allow rule
        @0  apply no-out            -> 0 disconnected
        @25 tcp web:1 > other:80 S  -> allow established
        @25 udp web:1 > other:53    -> allow established
        # The filter dropped it, and still Linux's entry has its time from it, as it should.
        @50 udp web:1 > other:53    -> allow established
        @50 udp other:53 > web:1    -> allow established
        @225 udp web:1 > other:53   -> allow established
        @225 tcp other:80 > web:1 SA -> deny midstream
    """, family, excused={"unanswered, and its rule is gone": 3})  # fmt: skip


@FAMILIES
def test_outbound_tcp_goes_on_in_every_state_as_if_nothing_had_been_changed(family: int) -> None:
    policy = open_policy()
    no_rules = Turn(10, tuple(RemoveRule("open", rule.id) for rule in policy.security_groups[0].rules))
    cells = [
        (path, ((way, flags),), ((0, "A"), (1, "FA"), (0, "S")))
        for path in PATHS.values() for way in (0, 1) for flags in ("S", "SA", "A", "FA", "R", "")
    ]  # fmt: skip
    before, after = [], []
    for port, (path, *rest) in enumerate(cells, 1024):
        before += [Step(0, packet) for packet in tcp_packets(family, False, port, path)]
        after += [Step(0, packet) for packet in tcp_packets(family, False, port, *rest)]
    comparison = Comparison(policy)
    with Kernel(policy) as kernel:
        judged = comparison.run([*before, no_rules, *after], kernel)
    with Kernel(policy) as kernel:
        unchanged = Comparison(policy).run([*before, Step(10, after[0].packet), *after[1:]], kernel)
    assert judged.pop(len(before)) == Turned(0, 0)
    same = [new.reason == old.reason for new, old in zip(judged, unchanged, strict=True)]
    # Packets that only a rule allows are denied now, and what follows from it.
    others = {(new.reason, old.reason) for new, old in zip(judged, unchanged, strict=True) if new.reason != old.reason}
    assert others <= {("no-rule", "rule"), ("no-rule", "established"), ("midstream", "established"),
                      ("midstream", "invalid")}  # fmt: skip
    print(f"{len(cells)} cells, {len(same) - sum(same)} packets without a connection; excused: {dict(comparison.hits)}")
    assert sum(same) > 0.8 * len(same)
    assert set(comparison.hits) <= {
        "unanswered, and its rule is gone", "challenge ACK", "SYN after a reset",
    }  # fmt: skip


# --- SPEC 6.6, 6.7, 7.2


@FAMILIES
def test_cut_unmatched_asks_the_new_rules_about_both_directions(family: int) -> None:
    source = "203.0.113.0/24" if family == 4 else "2001:db8:ff::/64"
    policy = on_change("cut-unmatched") + f"address_groups: [{{name: offices, addresses: [\"{source}\"]}}]\n" + ALONE
    rule = {4: "w/inbound/3", 6: "w/inbound/4"}[family]
    old = next(rule_ for rule_ in policy_of(policy).group_by_name["w"].rules if rule_.id == rule)
    offices = policy_of(policy.replace("protocol: udp, ports: 53", "protocol: udp, ports: 53, source: offices"))
    narrow = ModifyRule("w", rule, offices.group_by_name["w"].rules[2 + int(rule[-1]) - 1])
    play(policy, handshake() + handshake("web:1", "client:80") + f"""
        @0  udp client:1 > web:53   -> allow rule
        @0  ping client > web id=7  -> allow rule
        @0  gre web > client        -> allow rule
        @0  apply touch             -> 0 disconnected
        @0  apply narrow            -> 0 disconnected
        @0  apply elsewhere         -> 1 disconnected
        @5  udp web:53 > client:1   -> deny disconnected
        @5  apply no-out            -> 2 disconnected
        @5  tcp client:80 > web:1 PA -> deny disconnected
        @5  gre web > client        -> deny disconnected
        @5  tcp client:40000 > web:80 PA -> allow established
        @25 apply no-in             -> 2 disconnected
        @25 pong web > client id=7  -> deny disconnected
        @25 apply {old.id}
        @25 udp client:1 > web:53   -> deny disconnected
        @30 udp client:1 > web:53   -> allow rule
    """, family, {
        "narrow": narrow, "elsewhere": SetAddressGroup("offices", (ip_network("198.51.100.0/25"),)),
        old.id: AddRule("w", replace(old, id="")),
    })  # fmt: skip


@FAMILIES
def test_where_the_entry_is_deleted_the_answer_opens_and_lets_the_question_in(family: int) -> None:
    """SPEC 6.13."""
    play(on_change("forget-unmatched") + ALONE, handshake() + """
        @0  udp client:1 > web:53        -> allow rule
        @0  udp web:53 > client:1        -> allow established
        @0  apply no-in                  -> 2 disconnected
        @5  tcp client:40000 > web:80 PA -> deny midstream
        @5  tcp web:80 > client:40000 PA -> deny midstream
        @5  udp client:1 > web:53        -> deny no-rule
        @5  udp web:53 > client:1        -> allow rule
        @5  udp client:1 > web:53        -> allow established
    """, family)  # fmt: skip


# --- Random changes of random policies


def test_engine_judges_as_the_kernel_while_policies_change() -> None:
    print(f"seed {SEED}, {PACKETS} packets")
    seen, hits = random_traffic(PACKETS, SEED, 200, per_policy=min(1500, PACKETS // 10), changing=True)
    changes = Counter({what[1]: number for what, number in seen.items() if what[0] == "change"})
    print(f"{seen['packets']} packets, {dict(changes)}, {seen['disconnected']} connections cut: "
          f"{seen['deny', 'disconnected']} packets; excused: {dict(hits)}")  # fmt: skip
    assert seen["packets"] >= 0.8 * PACKETS
    assert sum(hits.values()) < 0.02 * seen["packets"]
    share = PACKETS / 20_000
    least = {
        "disconnected": 50, ("deny", "disconnected"): 300, ("allow", "established"): 8000, ("allow", "rule"): 500,
        ("deny", "no-rule"): 100, ("deny", "vpc-isolated"): 10, "both sides": 500, "refreshed though cut": 50,
    }  # fmt: skip
    assert {what: seen[what] for what, number in least.items() if seen[what] < number * share} == {}
    assert len(changes) > 8 and changes.total() > 100 * share
