"""Reports as Markdown that have something to say in every place, in full: no list and no sentence can be lost."""

from __future__ import annotations

from dataclasses import replace

from kinds import kinds_of
from reports import SIZES, check_markdown, replay_markdown, suggestion_markdown

from sgfast import Policy
from sgfast.clouds.loading import parse_policy
from sgfast.policy.expectations import Expectation, Word
from sgfast.policy.matching import Kind
from sgfast.policy.model import Rule
from sgfast.questions.checking import CheckResult, Finding
from sgfast.questions.replaying import (
    Broken,
    ChangeDone,
    CutConnection,
    Denied,
    ReplayResult,
    RuleHits,
    Service,
    Unanswered,
)
from sgfast.questions.replaying.results import Contradicted, Expected
from sgfast.questions.suggesting import Check, LeftOut, Suggestion, TrafficTotals
from sgfast.questions.suggesting.rules import SuggestedRule
from sgfast.traffic.capture import Damage
from sgfast.traffic.packet_selection import PacketsLeftOut

POLICY = parse_policy("""
version: 1
security_groups: [{name: web, rules: [{id: web-1, direction: inbound, protocol: tcp}]}]
instances: [{name: web-1, addresses: [10.0.0.5], security_groups: [web]}]
""")
WARNINGS = ["one_0", "one_1", "one_2"]
HTTP = Kind(b"\xc0\0\x02\x01", b"\x0a\0\0\x05", None, "web-1", 6, 80)


def replayed() -> ReplayResult:
    web, db = (Service(name, 6, port, None, None) for name, port in (("web-1", 80), ("db-1", 5432)))
    kinds = kinds_of(
        [Denied(web, "inbound", "192.0.2.9", None, "no-rule", 4, 240)],
        [Broken(web, "inbound", f"192.0.2.{n}", None, "no-rule", 4 - n) for n in (1, 2, 3)],
        [Unanswered(web, "silent", 2), Unanswered(db, "refused", 5)], others=6,
    )  # fmt: skip
    kinds.rows["connections"][-2] += 7
    ends = (6, "192.0.2.1", "10.0.0.5")
    cuts = [
        CutConnection(*ends, 4000 + n, 80, None, None, n == 1, 4 - n, "never", None, False, None, None)
        for n in (1, 2, 3)
    ]
    against = Expectation((Word("web", ""),), (Word("db", ""),), (Word("tcp/1", ""),), "deny", "", "", 9, "")
    rules = [RuleHits(Rule(f"web-{n}", "inbound", 4), "web", n // 2, n, 100 * n) for n in (9, 6, 3, *[0] * 8)]
    return ReplayResult(
        Policy(origin="policy.yaml"), mode="causal", midstream="deny", vpc="blue",
        captures=("a.pcap", "b.pcap", "c.pcap", "d.pcap"), packets=50,
        bytes=5000, verdicts={"allow": 30, "deny": 18, "moot": 2}, reasons={"rule": 30, "no-rule": 12, "midstream": 6},
        connections={"opened": 9, "denied": 11, "disconnected": 4, "inferred": 1}, kinds=kinds, rules=rules,
        first_time_ns=0, last_time_ns=10**9, left_out=PacketsLeftOut(filter=5), decapsulated={"vxlan": 3},
        changes=[ChangeDone(n * 10**8, f"remove_rule web-{n}", n, 0, 0, 1, (cuts[n - 1],), n, 1) for n in (1, 2, 3)],
        changes_left=2, expected=Expected("meant.yaml", 5, (Contradicted(against, 3),) * 3), warnings=WARNINGS,
        damaged=Damage("d.pcap", 24, 7, "the file ends"),
    )  # fmt: skip


def test_a_replay_in_full() -> None:
    """SPEC 10.24."""
    assert replay_markdown(replayed(), "instance", 2) == REPLAY


def test_a_check_in_full() -> None:
    """SPEC 10.12."""
    used = {HTTP: 4, HTTP._replace(port=81): 3}
    checked = CheckResult(
        replace(POLICY, origin="policy.yaml"), SIZES,
        (Finding("SG004", "open", rule="web-1"),
         Finding("SG015", "all_used", group="web", rule="web-1", connections=9, used=used),
         Finding("SG005", "nobody is in it", group="idle")),
        ("Half of it was left out.",), WARNINGS, traffic=replace(replayed(), policy=POLICY),
    )  # fmt: skip
    assert check_markdown(checked, {("rules", "web-1"): 3}, by="instance", top=2) == CHECK


def test_a_suggestion_in_full() -> None:
    """SPEC 10.15."""
    rule = Rule("web-1", "inbound", 4, 6, ((80, 80),))
    found = Suggestion(
        POLICY, "", tuple(SuggestedRule(rule, "web", TrafficTotals(n, n, 1000 * n)) for n in (3, 2, 1)),
        (LeftOut("never answered", TrafficTotals(7), {HTTP._replace(port=n): TrafficTotals(n) for n in (1, 2, 4)}),
         LeftOut("too many kinds of connections", TrafficTotals(8))),
        Check(9, 8, 1, False), {"malformed": 2}, ("a.pcap",), PacketsLeftOut(1, 2, 3, 4),
        Damage("a.pcap", 24, 7, "the file ends"), WARNINGS,
    )  # fmt: skip
    assert suggestion_markdown(found, "group", 2) == SUGGESTION


REPLAY = """\
### 6 connections would break, 6 connections cut by changes of the policy, nobody answered 4 denied packets (and perhaps 6 more), 7 allowed connections not served

50 packets, 5.0 kB of `a.pcap`, `b.pcap`, `c.pcap` and 1 more capture against `policy.yaml`; causal, midstream deny, VPC `blue`

Left out: 5 by --filter

| packets | share | verdict | why |
|---|---|---|---|
| 30 | 60.0 % | allow | rule 30 |
| 18 | 36.0 % | deny | no-rule 12, midstream 6 |
| 2 | 4.0 % | moot | follow a denied opener: would not exist |

#### Changes of the policy: 6 connections cut, 3 of which had finished before

| cut | came back | at (UTC) | change |
|---|---|---|---|
| 2 | 0 | 1970-01-01 00:00:00.200 | `remove_rule web-2` |
| 3 | 0 | 1970-01-01 00:00:00.300 | `remove_rule web-3` |

and 1 more change (1 cut): `--top 3` lists all

| cut at (UTC) | connection | what became of it |
|---|---|---|
| 1970-01-01 00:00:00.100 | `tcp 192.0.2.1:4001 > 10.0.0.5:80` | had finished; 3 packets came after that; not opened again |
| 1970-01-01 00:00:00.200 | `tcp 192.0.2.1:4002 > 10.0.0.5:80` | 2 packets came after that; not opened again |

and 1 more connection: `--top 3` lists all

Of 3 cut connections no more is known

3 packets of cut connections came after the cut. After a real change such packets could only be retransmissions, so they are not among the denied packets below.

2 changes would come after the last packet

#### Would break: connections that were answered, but that these groups deny

| connections | from | to | service | why | nearest rule |
|---|---|---|---|---|---|
| 3 | `192.0.2.1` | `web-1` | tcp/80 | no-rule |  |
| 2 | `192.0.2.2` | `web-1` | tcp/80 | no-rule |  |

and 1 more pair (1 connection): `--top 3` lists all

#### Compared with the expectations in `meant.yaml`

5 connections denied as meant, though answered in the capture

- 3 connections were allowed, though line 9 says: `web to db: tcp/1` should be denied
- 3 connections were allowed, though line 9 says: `web to db: tcp/1` should be denied

and 1 more line: `--top 3` lists all

#### Denied packets that nobody answered: nothing that worked depends on them

| packets | from | to | service | why |
|---|---|---|---|---|
| 6 | `other instances` | `other addresses` | hopopt | no-rule, perhaps answered |
| 4 | `192.0.2.9` | `web-1` | tcp/80 | no-rule |

5 denied packets without readable addresses (malformed)

#### Allowed by the groups, but not served by the instance

| connections | from | to | service | why |
|---|---|---|---|---|
| 5 | `192.0.2.1` | `db-1` | tcp/5432 | refused: RST or ICMP unreachable |
| 2 | `192.0.2.1` | `web-1` | tcp/80 | no answer |

#### Allowed: 7 connections

| connections | from | to | service | why |
|---|---|---|---|---|
| 7 | `192.0.2.1` | `db-1` | tcp/5432 | rule |

#### Rules: 3 of 11 were hit

| connections | packets | bytes | rule |
|---|---|---|---|
| 4 | 9 | 900 B | `inbound all from 0.0.0.0/0 (web-9 in web)` |
| 3 | 6 | 600 B | `inbound all from 0.0.0.0/0 (web-6 in web)` |

and 1 more rule: `--top 3` lists all

Never hit: `inbound all from 0.0.0.0/0 (web-0 in web)`, `inbound all from 0.0.0.0/0 (web-0 in web)` and 6 more rules: `--top 8` lists all

#### Connections

9 opened, 11 denied, 4 cut by changes

1 connection began before the capture: who opened it was inferred, and the rules allowed it

6 denied packets belonged to TCP connections that the filter does not know (midstream)

#### Notes

- First packet: 1970-01-01 00:00:00.000000 UTC
- Last packet: 1970-01-01 00:00:01.000000 UTC, 1.0 s later
- Tunnels: taken off packets: vxlan 3
- Warning: one\\_0
- Warning: one\\_1
- Warning: and 1 more warning: `--json` has all
- **Damage: d.pcap: damaged at byte 24, packet 7: the file ends; what comes after that was not read**
- Remember: A capture taken behind today's security groups cannot show what they already block.
"""  # noqa: E501

CHECK = """\
### `policy.yaml` is valid; findings: 1 error, 2 notes

With `a.pcap`, `b.pcap`, `c.pcap` and 1 more capture: 50 packets in 1.0 s, from 1970-01-01 00:00:00.000000 to 1970-01-01 00:00:01.000000 UTC; left out: 5 by --filter

**d.pcap: damaged at byte 24, packet 7: the file ends; what comes after that was not read**

| code | severity | finding |
|---|---|---|
| SG004 | error | line 3, `web-1`: open |
| SG015 | note | line 3, `web-1 in web`: all\\_used |

and 1 more finding: `--top 3` lists all

#### SG015: 9 connections used `web-1 in web`

| connections | from | to | service |
|---|---|---|---|
| 4 | `192.0.2.1` | `web-1` | tcp/80 |
| 3 | `192.0.2.1` | `web-1` | tcp/81 |

and others of too many kinds to be told apart (2 connections)

#### What to do

- SG004: As the source, name the networks, the address group or the security group that needs access.
- SG015: Put the narrower rules in its place if nothing else should come this way. A capture shows only what happened while it ran: think of backups, month ends, failovers and other clients.

#### Notes

- Left out: Half of it was left out.
- Warning: one\\_0
- Warning: one\\_1
- Warning: and 1 more warning: `--json` has all
- Remember: A capture taken behind today's security groups cannot show what they already block.
"""  # noqa: E501

SUGGESTION = """\
### 3 rules in 1 group for 1 instance

**Replayed with `a.pcap`, the suggested policy allows 8 of 9 connections, and 1 of those left out**

| connections | bytes | rule |
|---|---|---|
| 3 | 3.0 kB | `web`: tcp/80 from 0.0.0.0/0 (IPv4) |
| 2 | 2.0 kB | `web`: tcp/80 from 0.0.0.0/0 (IPv4) |

and 1 more rule (1 connection): `--top 3` lists all

#### Left out: 7 connections: never answered

| connections | from | to | service |
|---|---|---|---|
| 4 | `192.0.2.1` | `web-1` | tcp/4 |
| 2 | `192.0.2.1` | `web-1` | tcp/2 |

and 1 more pair (1 connection): `--top 3` lists all

#### Left out: 8 connections: too many kinds of connections

#### Notes

- Packets: of no connection, or left out: 2 malformed, 1 before --start, 2 at --end or later, 3 by --filter, 4 duplicates
- Warning: one\\_0
- Warning: one\\_1
- Warning: and 1 more warning: `--json` has all
- **Damage: a.pcap: damaged at byte 24, packet 7: the file ends; what comes after that was not read**
- Remember: A capture taken behind today's security groups cannot show what they already block.
"""  # noqa: E501
