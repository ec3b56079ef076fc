"""Inputs to begin fuzzing with: small and right, of all that tests can build and the repository has."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import frames as wire
from captures import (
    KUZNETZOV,
    MICRO,
    NANO,
    enhanced,
    interface,
    obsolete,
    option,
    pcap_head,
    pcap_record,
    section,
    simple,
    tsresol,
)
from flow_log_writer import (
    AWS_V2,
    AWS_V5,
    SECOND,
    Logged,
    write_aws,
    write_cloudwatch,
    write_firehose,
    write_neutron,
    write_otc,
)
from fuzz.targets import NEXT_DOCUMENT, NEXT_FRAME
from zeek_log_writer import write_zeek_json, write_zeek_tsv

from sgfast.engine import LINK_TYPES

PCAPS = Path(__file__).resolve().parent.parent.parent / "pcaps"

#: Bytes; larger files would mostly be mutated in their payloads.
LARGEST_CAPTURE = 2_000

V4, V6 = ("10.0.0.5", "198.51.100.7"), ("2001:db8::5", "fe80::7")
OTHER_V4 = ("198.51.100.7", "192.168.0.9")


def seeds(target: str) -> Iterator[bytes]:
    makers = {"captures": captures, "frames": frames, "documents": documents, "logs": logs, "sequences": sequences}
    return makers[target]()


def packets() -> Iterator[wire.Layer]:
    """IP packets of every kind there are builders for."""
    for source, destination in (V4, V4[::-1], OTHER_V4, V6, V6[::-1]):
        transports: list[wire.Layer] = [
            wire.tcp(40000, 80, "S"), wire.tcp(80, 40000, "SA"), wire.tcp(40000, 80, "A", bytes(4), data_offset=8),
            wire.udp(5000, 53, bytes(4)), wire.udp(68, 67), wire.udplite(1, 2), wire.sctp(1, 2), wire.dccp(1, 2),
            wire.other(47, bytes(8)), wire.other(50, bytes(8)), wire.other(51, bytes(24)),
        ]  # fmt: skip
        inner = wire.ip(destination, source, wire.udp(53, 5000))
        if ":" in source:
            transports += [wire.icmpv6(128), wire.icmpv6(135), wire.icmpv6_error(1, 0, inner)]
        else:
            transports += [wire.icmp(8), wire.icmp(0), wire.icmp(13), wire.icmp_error(3, 1, inner)]
        yield from (wire.ip(source, destination, transport) for transport in transports)
    yield wire.ipv4(*V4, wire.udp(1, 2), options=bytes(8))
    yield wire.ipv4(*V4, wire.udp(1, 2, bytes(16)), more_fragments=True)
    yield wire.ipv4(*V4, wire.udp(1, 2, bytes(16)), fragment_offset=3)
    headers = [wire.extension(0), wire.extension(60, 16), wire.extension(43), wire.fragment(0, True)]
    yield wire.ipv6(*V6, wire.tcp(1, 2, "S"), extensions=headers)
    yield wire.ipv6(*V6, wire.tcp(1, 2, "S"), extensions=[wire.fragment(4, False)])
    yield wire.ipv6(*V6, wire.tcp(1, 2, "S"), extensions=[wire.jumbo(0x10000, before=bytes(4))], payload_length=0)


def links(packet: wire.Layer) -> Iterator[tuple[int, bytes]]:
    """A packet in every link layer there is a builder for."""
    yield wire.LINK_ETHERNET, wire.ethernet(packet, padding=6)
    yield wire.LINK_ETHERNET, wire.ethernet(wire.vlan(wire.vlan(packet), tpid=0x88A8))
    yield wire.LINK_ETHERNET, wire.ethernet(wire.mpls(packet, 2))
    yield wire.LINK_ETHERNET, wire.ethernet(wire.pppoe(packet))
    yield wire.LINK_SLL, wire.sll(packet)
    yield wire.LINK_SLL2, wire.sll2(packet)
    yield wire.LINK_NULL, wire.null(packet, 2 if packet.protocol == 0x0800 else 30)
    yield wire.LINK_LOOP, wire.null(packet, 2, byteorder="big")
    # Whatever else is read finds its packet by itself, or mutations do.
    for link_type in LINK_TYPES:
        yield link_type, packet


def frames() -> Iterator[bytes]:
    known = list(packets())
    for packet in known:
        for options in (b"\x03", b"\x05"):
            yield bytes([LINK_TYPES.index(1)]) + options + b"\0\0" + wire.ethernet(packet)
    for packet in known[:1] + known[-2:]:
        for link_type, frame in links(packet):
            yield bytes([LINK_TYPES.index(link_type)]) + b"\x07\0\0" + frame
    question, answer = wire.ip(*V4, wire.udp(1, 53)), wire.ip(*V4[::-1], wire.udp(53, 1))
    error = wire.ip(*V4[::-1], wire.icmp_error(3, 3, question))
    yield b"\x01\x06\0\0" + NEXT_FRAME.join(map(wire.ethernet, (question, answer, error)))
    talk = [wire.ip(*ends, wire.tcp(*ports, flags)) for ends, ports, flags in (
        (V4, (1, 80), "S"), (V4[::-1], (80, 1), "SA"), (V4, (1, 80), "FA"), (V4[::-1], (80, 1), "R"),
    )]  # fmt: skip
    yield b"\x01\x07\0\0" + NEXT_FRAME.join(map(wire.ethernet, talk))


def captures() -> Iterator[bytes]:
    frame = wire.ethernet(wire.ip(*V4, wire.tcp(40000, 80, "S")))
    for order in "<>":
        for magic in (MICRO, NANO, KUZNETZOV):
            extra = bytes(8) if magic == KUZNETZOV else b""
            yield pcap_head(order, magic) + pcap_record(extra + frame, order, (5, 7), captured=len(frame))
        yield pcap_head(order) + pcap_record(frame, order, (5, 7)) + pcap_record(frame[:40], order, (6, 8), wire=60)
        offset = option(14, struct.pack(order + "q", -5), order)
        blocks = [enhanced(frame, order, 5_000_007), obsolete(frame, order, 6_000_008), simple(frame, order)]
        for options in (b"", tsresol(9, order), tsresol(0x8A, order) + offset):
            yield section(order) + interface(order, options=options) + b"".join(blocks)
        yield section(order) + interface(order, 101) + enhanced(frame[14:], order) + section(order) + interface(order)
    for link_type, framed in links(next(packets())):
        yield pcap_head("<", MICRO, link_type) + pcap_record(framed)
    plain = pcap_head() + pcap_record(frame) * 5
    yield lzma.compress(plain[:100]) + lzma.compress(plain[100:])
    for path in sorted(PCAPS.rglob("*.pcap")):
        yield path.read_bytes()[:LARGEST_CAPTURE]


#: The folder of the corpus that has files for a target, and the most bytes of one.
REAL_FILES = {"captures": ("pcaps", LARGEST_CAPTURE), "logs": ("flow-logs", 8_000)}


def real_files(target: str) -> Iterator[bytes]:
    """Small files of the corpus, if there is one and the target reads files."""
    corpus = os.environ.get("SGFAST_CORPUS")
    if not corpus or target not in REAL_FILES:
        return
    name, largest = REAL_FILES[target]
    for path in sorted(Path(corpus, name).rglob("*")):
        if path.is_file() and path.suffix not in (".tsv", ".md") and path.stat().st_size <= largest:
            yield path.read_bytes()


def logs() -> Iterator[bytes]:
    """A few packets in every format that is read, and names of those that are only recognised."""
    talk = [
        wire.ip(*V4, wire.tcp(40000, 80, "S")), wire.ip(*V4[::-1], wire.tcp(80, 40000, "SA")),
        wire.ip(*V6, wire.udp(5000, 53, bytes(4))), wire.ip(*V4, wire.icmp(8)), wire.ip(*V4[::-1], wire.icmp(0)),
        wire.ip(*OTHER_V4, wire.other(47, bytes(8))), wire.ip(*V4, wire.sctp(1, 2)),
        wire.ip(*V4, wire.tcp(40000, 80, "FA")),
    ]  # fmt: skip
    packets = [((1_700_000_000 + 40 * n) * SECOND, wire.ethernet(packet), 1) for n, packet in enumerate(talk)]
    interfaces = {"eni-1": [V4[0], V6[0]], "eni-2": ["192.168.0.9"]}
    blocking = Logged(blocked=lambda packet, interface, direction: packet.protocol == 47)
    aws = [write_aws(packets, interfaces, blocking, fields=fields) for fields in (AWS_V2, AWS_V5)]
    yield from aws
    yield write_aws(packets, interfaces, Logged(600, sampled=2), header=False)
    yield aws[0].replace(b" OK", b" SKIPDATA", 2).replace(b" OK", b" NODATA", 1)
    yield b"tgw-attachment-id " + aws[0].replace(b"\n", b"\ntgw-1 ").removesuffix(b"tgw-1 ").replace(b" action", b"")
    yield b"".join(b"2023-11-14T22:13:20.000Z " + line + b"\n" for line in aws[0].splitlines())
    yield write_cloudwatch(packets, interfaces)
    yield gzip.decompress(write_cloudwatch(packets, interfaces))
    yield write_firehose(packets, interfaces)
    yield json.dumps({"events": [{"message": line} for line in aws[0].decode().splitlines()]}).encode()
    yield write_otc(packets, interfaces)
    yield from (write_neutron(packets, interfaces, blocking, dated=dated) for dated in (True, False))
    yield write_zeek_tsv(packets)
    yield write_zeek_json(packets)
    yield gzip.compress(aws[0], mtime=0) + gzip.compress(aws[0], mtime=0)
    for name in (b"NetworkSecurityGroupFlowEvent", b'"flowTuples"', b'"verdict": 1, "l4"', b'"collector_crn": 2'):
        yield b"{" + name + b"}"


def documents() -> Iterator[bytes]:
    changes = sorted(path for path in PCAPS.rglob("*.yaml") if "changes" in path.stem)
    policies = sorted(path for path in PCAPS.rglob("*.yaml") if path not in changes)
    exports = sorted((PCAPS / "export").glob("*.json"))
    for path in policies + exports:
        yield path.read_bytes()
    for policy, change in ((PCAPS / "shop.yaml", PCAPS / "shop.changes.yaml"),
                           (PCAPS / "changes" / "policy.yaml", PCAPS / "changes" / "changes.yaml"),
                           (PCAPS / "shop.yaml", PCAPS / "shop.expect.yaml")):  # fmt: skip
        yield policy.read_bytes() + NEXT_DOCUMENT + change.read_bytes()
    for change in EVERY_CHANGE:
        yield NEXT_DOCUMENT + f"changes:\n  - {{at: 1, {change}}}\n".encode()
    for expected in EXPECTED:
        yield NEXT_DOCUMENT + f"expect: [{expected}]".encode()
    for policy_text in EVERY_FIELD:
        yield policy_text.encode()
    yield TEMPLATE.encode()


#: About the policy that is there when an input has none.
EXPECTED = (
    "{from: any, to: servers, service: tcp/80, verdict: allow}",
    "{from: [internet, instance:private], to: group:servers, service: [icmp 8, udp/1-9; gre], verdict: deny}",
    "{from: 10.0.0.1, to: [clients, '::/1'], service: protocols 2-5, verdict: deny, name: a, why: b}",
)
#: CloudFormation, with most of its functions.
TEMPLATE = """
Parameters: {Net: {Type: String, Default: 10.0.0.0/16}, Nets: {Type: CommaDelimitedList, Default: "10.0.0.0/8,::/0"}}
Mappings: {Ports: {prod: {Web: 80}}}
Conditions: {Yes: !Equals [!Ref Net, 10.0.0.0/16], Both: !And [!Condition Yes, !Not [!Or [!Condition Yes]]]}
Resources:
  Vpc: {Type: "AWS::EC2::VPC", Properties: {CidrBlock: !Ref Net}}
  Web:
    Type: AWS::EC2::SecurityGroup
    Properties:
      VpcId: !Ref Vpc
      SecurityGroupIngress:
        - {IpProtocol: 6, FromPort: !FindInMap [Ports, prod, Web], ToPort: "80", CidrIp: !Select [0, !Ref Nets]}
        - {IpProtocol: -1, CidrIp: !If [Yes, !Sub ["${a}/${b}", {a: 10.0.0.0, b: 8}], !Ref "AWS::NoValue"]}
        - {IpProtocol: -1, CidrIp: !Select [1, !Cidr [!GetAtt Vpc.CidrBlock, 2, 8]]}
        - {IpProtocol: -1, CidrIp: !Join [/, !Split ["-", 10.0.0.0-8]]}
  Out: {Type: "AWS::EC2::SecurityGroupEgress", Properties: {GroupId: !GetAtt Web.Id, IpProtocol: -1, CidrIpv6: "::/0"}}
  Server: {Type: "AWS::EC2::Instance", Properties: {PrivateIpAddress: 10.0.0.5, SecurityGroupIds: [!ImportValue x]}}
Outputs: {Web: {Value: !Ref Web, Export: {Name: x}}}
"""
#: About the policy that changes are tried on when an input has none.
EVERY_CHANGE = (
    "add_rule: {group: servers, rule: {direction: inbound, protocol: tcp, ports: 8080, source: 10.0.0.0/8}}",
    "remove_rule: {group: servers, rule: servers/inbound/2}",
    "modify_rule: {group: servers, rule: servers/inbound/1, set: {ports: null, source: clients, priority: 7}}",
    "add_member: {group: clients, instance: low}",
    "remove_member: {group: servers, instance: low}",
    "add_instance: {name: new, addresses: [198.51.100.7], security_groups: [clients]}",
    "remove_instance: {instance: low}",
    'add_address: {instance: low, address: "2001:db8::/32"}',
    'remove_address: {instance: low, address: "::/1"}',
    "add_group: {name: more, fast_add: [ssh], rules: [{direction: outbound, protocol: 50}]}",
    "remove_group: {group: clients}",
    "add_peering: [default, default]",
    "remove_peering: [default, other]",
    "set_address_group: {name: offices, addresses: [192.0.2.0/24]}",
)

EVERY_FIELD = (
    """version: 1
quotas: {security_groups: 3, rules_per_group: 60}
settings: {profile: neutron, on_change: keep, max_connections: 10, infrastructure: filtered, timeouts: {icmp: 1.5}}
vpcs: [{name: a, region: x}, {name: b}]
peerings: [[a, b]]
address_groups: [{name: offices, addresses: [192.0.2.0/24, "2001:db8:1::/48"]}]
security_groups:
- {name: g, description: d, stateful: true, template: general-purpose-web-server, fast_add: [ssh, http], rules: [
  {id: r1, direction: ingress, ethertype: IPv4, protocol: tcp, ports: "22,80-90", source: {group: g}, action: deny,
   priority: 5, description: words}, {direction: egress, protocol: icmp, icmp_type: 8, icmp_code: 0,
   destination: {address_group: offices}}, {direction: outbound, protocol: 47, destination: {cidr: 10.0.0.0/8}}]}
instances: [{name: i, vpc: a, addresses: [10.0.0.5, "2001:db8::/64"], security_groups: [g]}, {name: j, vpc: b,
  addresses: [10.0.1.0/24]}]
""",
    "version: 1\nsecurity_groups: [&a {name: g, rules: []}]\ninstances: [{name: i, addresses: [10.0.0.1], <<: *a}]\n",
    '{"version": 1, "instances": [{"name": "i", "addresses": ["10.0.0.1"]}]}',
)


def sequences() -> Iterator[bytes]:
    rng = random.Random(1)
    for size in (10, 50, 100, 200, 400, 800, 1600) * 4:
        yield rng.randbytes(size)
