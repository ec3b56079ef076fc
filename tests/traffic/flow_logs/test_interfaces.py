"""The interfaces of records: whose they are, and what follows for rules, addresses that changed hands, and NAT gateways
(SPEC 10.12, 10.15, 10.27, 10.30).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import sgfast
from flow_logs import record

from sgfast import ReadOptions, load
from sgfast import replay as replay_files
from sgfast.api import check
from sgfast.clouds.aws.flow_log import DEFAULT_FIELDS
from sgfast.policy.model import Policy
from sgfast.questions.replaying import ReplayResult
from sgfast.questions.suggesting import Suggestion, suggest

WEB, DB, PEER = "10.0.0.5", "10.0.1.9", "203.0.113.5"
DAY = 86400
POLICY = """
version: 1
security_groups:
  - name: web
    rules:
      - {id: web-https, direction: inbound, protocol: tcp, ports: 443, source: 0.0.0.0/0}
      - {id: web-ssh, direction: inbound, protocol: tcp, ports: 22, source: 192.0.2.0/24}
      - {id: web-out, direction: outbound, protocol: tcp, ports: 443, destination: 203.0.113.5/32}
      - {id: web-to-db, direction: outbound, protocol: tcp, ports: 5432, destination: db}
  - name: db
    rules:
      - {id: db-sql, direction: inbound, protocol: tcp, ports: 5432, source: web}
      - {id: db-ssh, direction: inbound, protocol: tcp, ports: 22, source: 192.0.2.0/24}
instances:
  - {name: web-1, id: eni-0web, addresses: [10.0.0.5], security_groups: [web]}
  - {name: db-1, id: eni-0db, addresses: [10.0.1.9], security_groups: [db]}
"""
WITHOUT_IDS = POLICY.replace("id: eni-0web, ", "").replace("id: eni-0db, ", "")


def both(
    client: str, server: str, port: int, service: int, *, start: int, interface: str, protocol: int = 6
) -> list[str]:
    there = record(client, server, port, service, protocol, start=start, interface=interface)
    return [there, record(server, client, service, port, protocol, start=start, interface=interface)]


def month(interface: str = "eni-0web") -> list[str]:
    """Return records of clients of web-1, at an interface, on 31 days."""
    return [
        line for n in range(31 * 8 + 1)
        for line in both(f"198.51.100.{n % 9}", WEB, 50000 + n, 443, start=n * DAY // 8, interface=interface)
    ]  # fmt: skip


def written(folder: Path, lines: list[str], *, header: str = " ".join(DEFAULT_FIELDS)) -> Path:
    path = folder / "flow.log"
    ordered = sorted(lines, key=lambda line: int(line.split()[10]))
    path.write_text("\n".join((header, *ordered)) + "\n")
    return path


def replayed(folder: Path, lines: list[str], policy: str = POLICY) -> ReplayResult:
    result = replay_files(load(text=policy), written(folder, lines))
    left = result.records
    assert left is not None
    assert left.read == left.judged + left.rejected + sum(left.undecided.values()) + sum(left.left_out.values())
    return result


def suggested(path: Path, policy: Policy) -> Suggestion:
    return suggest(path, policy=policy, remove="30d", accept_evidence=("short-window",))


def taken(found: Suggestion) -> list[str]:
    return [each.rule.id for each in found.removed]


# Instances that were not logged ---------------------------------------------------------------------------------------


def unlogged(folder: Path, lines: list[str], policy: str = POLICY) -> tuple[str, ...]:
    records = replayed(folder, lines, policy).records
    assert records is not None
    return records.unlogged


@pytest.mark.parametrize("policy", [POLICY, WITHOUT_IDS])
def test_rules_of_an_instance_that_no_log_covers_stay(policy: str, tmp_path: Path) -> None:
    path, parsed = written(tmp_path, month()), load(text=policy)
    found = suggested(path, parsed)
    assert taken(found) == ["web-ssh", "web-out", "web-to-db"]
    assert any("db-1" in warning and "web-1" not in warning for warning in found.warnings)
    checked = check(parsed, captures=path)
    assert [each.rule for each in checked.findings if each.code == "SG012"] == ["web-ssh", "web-out", "web-to-db"]
    assert any("db-1" in sentence for sentence in checked.left_out)
    # Its own records cover it.
    path = written(tmp_path, [*month(), *both("192.0.2.7", DB, 50000, 22, start=50, interface="eni-0db"),
                              *both("192.0.2.8", DB, 50000, 22, start=50, interface="eni-0db")])
    assert taken(suggested(path, parsed)) == ["web-ssh", "web-out", "web-to-db", "db-sql"]
    assert not any("db-1" in sentence for sentence in check(parsed, captures=path).left_out)


def test_nothing_is_said_about_the_use_of_rules_that_no_log_covers(tmp_path: Path) -> None:
    parsed = load(text=POLICY.replace("192.0.2.0/24", "0.0.0.0/0"))
    result = check(parsed, captures=written(tmp_path, month()))
    uses = {each.rule: each.used_connections for each in result.findings if each.code == "SG004"}
    # No record is about db-1.
    assert uses == {"web-ssh": 0, "db-ssh": None}


@pytest.mark.parametrize("policy", [POLICY, WITHOUT_IDS])
def test_a_peer_in_the_records_of_others_was_not_logged(policy: str, tmp_path: Path) -> None:
    lines = [*month(), *both(WEB, DB, 50000, 5432, start=60, interface="eni-0web")]
    assert unlogged(tmp_path, lines, policy) == ("db-1",)
    # Nor does a single peer's interface show whose it is, unless the policy names it.
    lines = [*month(), *both(WEB, DB, 50000, 5432, start=60, interface="eni-0db")]
    assert unlogged(tmp_path, lines, policy) == ()
    lines = both(WEB, DB, 50000, 5432, start=60, interface="eni-0db")
    assert unlogged(tmp_path, lines, policy) == (("web-1",) if policy == POLICY else ("web-1", "db-1"))
    both_logged = [*lines, *both(WEB, DB, 50000, 5432, start=60, interface="eni-0web")]
    assert unlogged(tmp_path, both_logged, policy) == ()


def test_an_interval_without_traffic_shows_that_an_interface_was_logged(tmp_path: Path) -> None:
    idle = "2 1 eni-0db - - - - - - - 1000 1600 - NODATA"
    lost = idle.replace("NODATA", "SKIPDATA")
    assert unlogged(tmp_path, [*month(), idle]) == ()
    assert unlogged(tmp_path, [*month(), idle], WITHOUT_IDS) == ("db-1",)
    assert unlogged(tmp_path, [*month(), lost]) == ("db-1",)
    # Written the slow way.
    assert unlogged(tmp_path, [*month(), f"{idle} "]) == ()
    assert unlogged(tmp_path, [*month(), idle.replace("1 eni", "é eni")]) == ()


def test_one_logged_member_does_not_show_what_the_others_need(tmp_path: Path) -> None:
    more = POLICY + "  - {name: web-2, id: eni-0web2, addresses: [10.0.0.6], security_groups: [web]}\n"
    found = suggested(written(tmp_path, month()), load(text=more))
    assert taken(found) == []
    assert any("db-1, web-2" in warning for warning in found.warnings)


def test_the_own_interface_is_known_in_each_ip_version(tmp_path: Path) -> None:
    dual = WITHOUT_IDS.replace("[10.0.1.9]", "[10.0.1.9, '2001:db8::9']")
    lines = [*month(), *both("2001:db8:1::1", "2001:db8::9", 50000, 22, start=9, interface="eni-0db"),
             *both("2001:db8:1::2", "2001:db8::9", 50000, 22, start=9, interface="eni-0db")]
    assert unlogged(tmp_path, lines, dual) == ()


@pytest.mark.parametrize("named", [False, True])
def test_where_records_name_no_interface_any_record_of_an_instance_counts(named: bool, tmp_path: Path) -> None:
    lines = [line.replace("eni-0web", "-") for line in month()]
    assert unlogged(tmp_path, lines, POLICY if named else WITHOUT_IDS) == ("db-1",)
    lines += [line.replace("eni-0web", "-") for line in both(WEB, DB, 50000, 5432, start=60, interface="eni-0web")]
    assert unlogged(tmp_path, lines, POLICY if named else WITHOUT_IDS) == ()


def test_zeek_has_no_interfaces(tmp_path: Path) -> None:
    path = tmp_path / "conn.log"
    fields = "ts id.orig_h id.orig_p id.resp_h id.resp_p proto duration orig_pkts orig_ip_bytes resp_pkts resp_ip_bytes"
    rows = ["#separator \\x09", "#path\tconn", "#fields\t" + fields.replace(" ", "\t")]
    rows += [f"{n * DAY}.5\t198.51.100.7\t{50000 + n}\t{WEB}\t443\ttcp\t1.0\t5\t300\t5\t300" for n in range(32)]
    path.write_text("\n".join(rows) + "\n")
    found = suggested(path, load(text=POLICY))
    assert taken(found) == ["web-ssh", "web-out", "web-to-db"]
    assert any("db-1" in warning for warning in found.warnings)
    path.write_text("\n".join([*rows, f"5.5\t{WEB}\t40000\t{DB}\t5432\ttcp\t1.0\t5\t300\t5\t300"]) + "\n")
    assert "db-ssh" in taken(suggested(path, load(text=POLICY)))


def test_a_suggested_policy_says_whom_the_logs_leave_out(tmp_path: Path) -> None:
    path, policy = written(tmp_path, month()), load(text=POLICY)
    said = "The suggested policy may lack rules that these instances need, as the logs have no record of their own "
    found = suggest(path, policy=policy)
    assert f"{said}interfaces: db-1." in found.warnings and f"# {said}interfaces: db-1.\n" in found.text
    assert f"{said}interfaces: db-1." in found.cautions
    # The rules that it has today stay.
    kept = suggest(path, policy=policy, keep=True)
    assert not any("may lack rules" in text for text in (*kept.warnings, *kept.cautions, kept.text))
    logged = suggest(written(tmp_path, [*month(), "2 1 eni-0db - - - - - - - 1000 1600 - NODATA"]), policy=policy)
    assert not any("may lack rules" in text for text in (*logged.warnings, logged.text))


def test_records_outside_of_the_window_cover_nothing(tmp_path: Path) -> None:
    early = [*both("192.0.2.7", DB, 50000, 22, start=5, interface="eni-0db")]
    path = written(tmp_path, [*month(), *early])
    result = replay_files(load(text=POLICY), path, reading=ReadOptions(start="+86400"))
    assert result.records is not None and result.records.unlogged == ("db-1",)


def test_ten_instances_are_named_and_then_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = "".join(
        f"  - {{name: idle-{n:02}, addresses: [10.0.9.{n}], security_groups: [db]}}\n" for n in range(1, 16)
    )
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY + many)
    path = written(tmp_path, month())
    short = sgfast(capsys, "check", policy, "--traffic", path).out
    assert "idle-09" in short and "idle-10" not in short and "and 6 more" in short.replace("\n          ", " ")
    long = sgfast(capsys, "check", policy, "--traffic", path, "--top", "50").out
    assert "idle-15" in long[long.index("Left out") :] and " more" not in long[long.index("Left out") :]
    answer = json.loads(sgfast(capsys, "check", policy, "--traffic", path, "--json").out)
    assert len(answer["traffic"]["records"]["unlogged"]) == 16


# An address that changed hands ----------------------------------------------------------------------------------------


def handed_over(until: int = 16, old: str = "eni-0old") -> list[str]:
    """Return 31 days: until a day, another machine has web-1's address, and serves tcp/22."""
    return [
        line for n in range(31 * 24)
        for line in both(
            f"198.51.100.{n % 9}", WEB, 50000 + n, 22 if n < until * 24 else 443, start=n * 3600,
            interface=old if n < until * 24 else "eni-0web",
        )
    ]  # fmt: skip


def test_traffic_of_an_interface_that_had_the_address_before_is_not_the_instances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = replayed(tmp_path, handed_over())
    assert result.records is not None
    assert result.records.left_out == {"other-owner": 2 * 16 * 24}
    assert (result.connections["denied"], result.evidence.conclusive) == (0, "yes")
    (noticed,) = result.records.interfaces
    assert (noticed.role, noticed.interface, noticed.address, noticed.instance, noticed.left_out, noticed.doubtful) == (
        "other-owner", "eni-0old", WEB, "web-1", 2 * 16 * 24, 0
    )
    kept = suggest(tmp_path / "flow.log", policy=load(text=POLICY), keep=True)
    assert kept.rules == ()
    text = sgfast(capsys, "replay", valid_policy(tmp_path), tmp_path / "flow.log").out
    assert "eni-0old had 10.0.0.5" in text
    # Without an id, nobody knows whose interface it is.
    assert replayed(tmp_path, handed_over(), WITHOUT_IDS).connections["denied"] == 16 * 24
    # A word of another kind is no other interface.
    other = POLICY.replace("eni-0web", "i-0123")
    assert replayed(tmp_path, handed_over(), other).connections["denied"] == 16 * 24


def valid_policy(folder: Path) -> Path:
    path = folder / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_what_another_owner_did_is_left_out_at_the_other_end_too(tmp_path: Path) -> None:
    # db-1 and the machine that had web-1's address before talk, at ports that they keep. Then db-1 and web-1 do.
    lines = handed_over()
    for n in range(-100, 100):
        for interface in ("eni-0old" if n < 0 else "eni-0web", "eni-0db"):
            lines += both(WEB, DB, 40000, 22, start=16 * DAY + 600 * n, interface=interface)
    result = replayed(tmp_path, lines)
    assert result.records is not None
    assert result.records.left_out["other-owner"] == 2 * 16 * 24 + 4 * 100
    assert 0 < result.connections["denied"] <= 100
    assert result.records.left_out["other-end"] == 2 * 100


def test_a_former_owner_with_one_peer_in_its_first_hours(tmp_path: Path) -> None:
    """The peer is an instance that was logged. Which of both ends had the interface is known later."""
    lines = [
        line for n in range(4) for interface in ("eni-0old", "eni-0db")
        for line in both(DB, WEB, 50000 + n, 22, start=n * 60, interface=interface)
    ]  # fmt: skip
    lines += [line for line in month() if int(line.split()[10]) > DAY]
    another = both("198.51.100.7", WEB, 50000, 22, start=6 * 3600, interface="eni-0old")
    result = replayed(tmp_path, lines + another)
    assert result.records is not None
    assert result.records.left_out["other-owner"] == 2 * 8 + 2
    assert (result.connections["denied"], result.evidence.conclusive) == (0, "yes")
    # If it has no other peer, this stays in doubt, but not if the own interfaces of both ends show the traffic.
    result = replayed(tmp_path, lines)
    assert [(each.code, each.packets) for each in result.evidence.reasons] == [("other-owner", 8)]
    assert "eni-0old" in result.evidence.reasons[0].sentence
    shown = [line.replace("eni-0old", "eni-0web") for line in lines if "eni-0old" in line]
    result = replayed(tmp_path, lines + shown)
    assert (result.connections["denied"], result.evidence.conclusive) == (4, "yes")


def test_an_interface_with_one_peer_only_may_be_the_peers(tmp_path: Path) -> None:
    # Both ends are in all records of the interface. Nothing is left out.
    single = [
        line for n in range(30)
        for line in both("10.9.9.9", WEB, 50000 + n, 22, start=n * 60, interface="eni-0old")
    ]  # fmt: skip
    result = replayed(tmp_path, [*month(), *single])
    assert result.records is not None
    assert "other-owner" not in result.records.left_out
    assert [(each.code, each.packets) for each in result.evidence.reasons] == [("other-owner", 60)]
    assert "eni-0old" in result.evidence.reasons[0].sentence and "web-1" in result.evidence.reasons[0].sentence
    # web-1's own interface shows the same traffic, so that the other interface is the peer's.
    shown = [line.replace("eni-0old", "eni-0web") for line in single]
    result = replayed(tmp_path, [*month(), *single, *shown])
    assert result.evidence.conclusive == "yes" and result.connections["denied"] == 30
    # The direction tells whose the interface is.
    header = " ".join((*DEFAULT_FIELDS, "flow-direction"))
    for to_web, left_out in (("ingress", 60), ("egress", 0)):
        to_peer = "egress" if to_web == "ingress" else "ingress"
        directed = [f"{line} {to_web if f'{WEB} 5' in line else to_peer}" for line in single]
        result = replay_files(load(text=POLICY), written(tmp_path, directed, header=header))
        assert result.records is not None
        assert result.records.left_out.get("other-owner", 0) == left_out
        assert "other-owner" not in [each.code for each in result.evidence.reasons]


def test_an_interface_of_the_policy_with_one_peer_is_its_own(tmp_path: Path) -> None:
    # All records of db-1's interface have web-1's address, as db-1 has two addresses and one peer.
    two = POLICY.replace("[10.0.1.9]", "[10.0.1.9, 10.0.1.10]")
    lines = [
        line for n in range(20)
        for line in both(WEB, ("10.0.1.9", "10.0.1.10")[n % 2], 50000 + n, 5432, start=n, interface="eni-0db")
    ]  # fmt: skip
    result = replayed(tmp_path, lines, two)
    assert result.records is not None and result.records.interfaces == ()
    assert (result.records.judged, result.evidence.conclusive) == (40, "yes")


def test_an_address_that_a_change_gives_to_another_instance_is_its_own(tmp_path: Path) -> None:
    changes = tmp_path / "changes.yaml"
    changes.write_text(
        "version: 1\nchanges:\n"
        f"  - {{at: {16 * DAY}, remove_instance: {{instance: web-1}}}}\n"
        f"  - {{at: {16 * DAY}, add_instance: {{name: web-9, id: eni-0new, addresses: [{WEB}], "
        "security_groups: [web]}}\n"
    )
    lines = [line.replace("eni-0web", "eni-0new") for line in handed_over(old="eni-0web")]
    result = replay_files(load(text=POLICY), written(tmp_path, lines), changes=changes)
    assert result.records is not None
    assert result.records.left_out == {}


# NAT gateways ---------------------------------------------------------------------------------------------------------

GATEWAY = "10.0.9.220"


def through_gateway(
    client: str, client_interface: str | None, count: int = 20, peers: int = 1, first: int = 40000
) -> list[str]:
    """Return connections through a NAT gateway, as version 2 shows them at the client's and the gateway's interface."""
    lines = []
    for n in range(count):
        peer, start = PEER if peers == 1 else f"203.0.113.{5 + n % peers}", 100 * n
        if client_interface is not None:
            lines += both(client, peer, first + n, 443, start=start, interface=client_interface)
        lines += both(client, GATEWAY, first + n, 443, start=start, interface="eni-0nat")
        lines += both(GATEWAY, peer, first - 20000 + n, 443, start=start, interface="eni-0nat")
    return lines


@pytest.mark.parametrize("policy", [POLICY, WITHOUT_IDS])
@pytest.mark.parametrize("busy", [False, True])
def test_a_connection_through_a_nat_gateway_counts_once(policy: str, busy: bool, tmp_path: Path) -> None:
    lines = through_gateway(WEB, "eni-0web") + (month()[:40] if busy else [])
    result = replayed(tmp_path, lines, policy)
    assert result.records is not None
    # Both those with its client and those with its client's peer, whichever come first.
    assert result.records.left_out == {"nat-gateway": 80}
    turned = replayed(tmp_path, lines[::-1], policy)
    assert turned.records is not None and turned.records.left_out == {"nat-gateway": 80}
    assert (result.connections["denied"], result.evidence.conclusive) == (0, "yes")
    (noticed,) = result.records.interfaces
    assert (noticed.role, noticed.interface, noticed.address) == ("nat-gateway", "eni-0nat", GATEWAY)
    assert noticed.instance is None
    # A connection that would break still does.
    other = policy.replace("203.0.113.5/32", "203.0.113.6/32")
    assert replayed(tmp_path, lines, other).connections["denied"] == 20


def test_what_only_the_gateway_shows_is_doubted(tmp_path: Path) -> None:
    two = POLICY + "  - {name: web-2, id: eni-0web2, addresses: [10.0.0.6], security_groups: [web]}\n"
    lines = [*through_gateway(WEB, "eni-0web"), *through_gateway("10.0.0.6", None, 7, first=50000)]
    result = replayed(tmp_path, lines, two)
    assert result.records is not None
    assert result.records.left_out == {"nat-gateway": 80 + 14}
    (reason,) = result.evidence.reasons
    assert (reason.code, reason.level, reason.packets) == ("nat-gateway", "partly", 14)
    assert f"eni-0nat ({GATEWAY})" in reason.sentence


def test_an_instance_that_translates_is_doubted(tmp_path: Path) -> None:
    two = POLICY + f"  - {{name: nat-1, id: eni-0nat, addresses: [{GATEWAY}], security_groups: [web]}}\n"
    result = replayed(tmp_path, [*through_gateway(WEB, "eni-0web", peers=3), *month()[:40]], two)
    assert [(each.code, each.packets) for each in result.evidence.reasons] == [("nat-gateway", 40)]


def test_a_gateway_of_which_no_client_was_logged_is_doubted(tmp_path: Path) -> None:
    # The log of a public subnet: the client's egress rule allows the real peer, which version 2 does not show.
    lines = [*through_gateway(WEB, None), *month()[:40]]
    result = replayed(tmp_path, lines)
    assert result.records is not None and result.connections["denied"] == 20
    (reason,) = result.evidence.reasons
    assert (reason.code, reason.level, reason.packets) == ("nat-gateway", "partly", 40)
    assert f"eni-0nat ({GATEWAY})" in reason.sentence
    turned = replayed(tmp_path, lines[::-1])
    assert turned.evidence.reasons == result.evidence.reasons
    # So do clocks, whose ports are equal.
    clocks = [
        line for n in range(20) for ends in ((WEB, GATEWAY, 123), (GATEWAY, PEER, 20000 + n))
        for line in both(*ends, 123, start=100 * n, interface="eni-0nat", protocol=17)
    ]  # fmt: skip
    assert [each.code for each in replayed(tmp_path, [*clocks, *month()[:40]]).evidence.reasons] == ["nat-gateway"]


@pytest.mark.parametrize("difference", ["bytes", "port", "time", "instance"])
def test_a_relay_is_no_gateway(difference: str, tmp_path: Path) -> None:
    # A proxy opens connections of its own, whose packets differ in size, port or time. A load balancer opens them to
    # instances.
    policy = POLICY + "  - {name: web-2, id: eni-0web2, addresses: [10.0.0.6], security_groups: [web]}\n"
    lines = []
    for n in range(20):
        lines += both(WEB, GATEWAY, 40000 + n, 443, start=300 * n, interface="eni-0nat")
        asked = both(
            GATEWAY, "10.0.0.6" if difference == "instance" else PEER, 20000 + n,
            8443 if difference == "port" else 443, start=300 * n + (200 if difference == "time" else 0),
            interface="eni-0nat",
        )  # fmt: skip
        for line in asked:
            fields = line.split()
            if difference == "bytes":
                fields[9] = str(int(fields[9]) + 52)
            lines.append(" ".join(fields))
    result = replayed(tmp_path, [*lines, *month()[:40]], policy)
    assert result.records is not None and result.connections["denied"] >= 20
    assert [each.code for each in result.evidence.reasons] == []


def test_a_service_without_an_instance_is_no_gateway(tmp_path: Path) -> None:
    # Its interface shows the connections that its clients' interfaces show, too.
    lines = [
        line for n in range(30) for interface in ("eni-0web", "eni-0rds")
        for line in both(WEB, GATEWAY, 40000 + n, 5432, start=60 * n, interface=interface)
    ]  # fmt: skip
    lines += through_gateway(WEB, "eni-0web")[:2] + month()[:40]
    lines += [line for n in range(9) for line in both(f"10.7.7.{n}", GATEWAY, 999, 5432, start=9, interface="eni-0rds")]
    result = replayed(tmp_path, lines)
    assert result.records is not None and result.records.interfaces == ()
    assert result.connections["denied"] == 30
    # Nor if a client has the same port for another server meanwhile.
    twins = [line for n in range(30) for line in both(WEB, PEER, 40000 + n, 5432, start=60 * n, interface="eni-0web")]
    result = replayed(tmp_path, lines + twins)
    assert result.records is not None and result.records.interfaces == ()
    assert result.connections["denied"] == 60
    # Nor if the client was not logged: then another peer of the same port and time shows nothing.
    lines = [
        line for n in range(30) for peer in (GATEWAY, "10.6.6.6")
        for line in both(WEB, peer, 123, 123, start=60 * n, interface=f"eni-{peer}", protocol=17)
    ]  # fmt: skip
    others = [both(f"10.7.7.{n}", GATEWAY, 999, 123, start=9, interface=f"eni-{GATEWAY}") for n in range(9)]
    lines += [line for each in others for line in each]
    result = replayed(tmp_path, lines, WITHOUT_IDS)
    assert result.records is not None and result.records.interfaces == ()
    assert "nat-gateway" not in result.records.left_out


def test_a_twin_has_the_same_ports_and_time(tmp_path: Path) -> None:
    # Another port, and the same one an hour later, are other connections: the client was not logged at the time.
    lines = both(WEB, PEER, 41000, 443, start=100, interface="eni-0web")
    lines += [*both(WEB, PEER, 42000, 443, start=4000, interface="eni-0web"), *month()[:20]]
    for peer in ("10.7.7.7", WEB):
        lines += both(peer, GATEWAY, 40000, 443, start=100, interface="eni-0rds")
    lines += both(WEB, GATEWAY, 42000, 443, start=100, interface="eni-0rds")
    result = replayed(tmp_path, lines)
    assert result.records is not None and result.records.left_out == {}
    assert result.records.interfaces == () and result.connections["denied"] == 2


def test_the_packets_own_addresses_tell_the_connection(tmp_path: Path) -> None:
    header = " ".join((*DEFAULT_FIELDS, "pkt-srcaddr", "pkt-dstaddr"))
    lines = []
    for line in through_gateway(WEB, "eni-0web"):
        src, dst = line.split()[3:5]
        real = {(WEB, GATEWAY): (WEB, PEER), (GATEWAY, WEB): (PEER, WEB)}.get((src, dst), (src, dst))
        lines.append(f"{line} {' '.join(real)}")
    result = replay_files(load(text=POLICY), written(tmp_path, lines, header=header))
    assert result.records is not None
    assert (result.records.left_out, result.connections["denied"]) == ({"other-end": 40}, 0)
