"""The corpus of captures, which is not in the repository (``SGFAST_CORPUS``), and a policy to judge it."""

from __future__ import annotations

import csv
import os
from pathlib import Path

ROOT = Path(os.environ.get("SGFAST_CORPUS") or Path(__file__).parents[2] / ".." / "shared" / "corpus").resolve()

MANIFEST = ROOT / "pcaps" / "MANIFEST.tsv"

# The link types' names in capinfos and tcpdump. DLT67108865 is Ethernet with a bit about check sequences set.
SUPPORTED = {
    "NULL", "EN10MB", "RAW", "LOOP", "LINUX_SLL", "IPV4", "IPV6", "LINUX_SLL2", "DLT67108865", "SLIP", "PPP",
    "PPP_HDLC", "FDDI", "C_HDLC", "FRELAY", "IEEE802_11", "IEEE802_11_RADIOTAP", "SUNATM", "ARCNET_LINUX", "NFLOG",
    "DLT11", "DLT19", "DLT100", "DLT106", "DLT178", "DLT192", "DLT226", "DLT242", "DLT258",
}  # fmt: skip

# These end in records of zeros, which sgfast treats as damage, but tcpdump and capinfos as packets.
END_IN_ZEROS = ("bgp_vpn_rt-oobr.pcap", "vtp_asan.pcap")

# Two instances own most addresses in typical captures, so that packets are judged instead of out of scope.
DOCUMENT = """
version: 1
settings: {max_connections: 1000}
security_groups:
  - name: servers
    rules:
      - {direction: inbound, protocol: tcp, ports: "22,80,443,8080-8090", source: 0.0.0.0/0}
      - {direction: inbound, protocol: udp, ports: "53,123,500", source: 0.0.0.0/0}
      - {direction: inbound, protocol: icmp, source: 0.0.0.0/0}
      - {direction: inbound, ethertype: IPv6, protocol: all}
      - {direction: outbound, protocol: udp, destination: 0.0.0.0/0}
  - name: clients
    rules:
      - {direction: outbound, protocol: all, destination: 0.0.0.0/0}
      - {direction: outbound, ethertype: IPv6, protocol: all}
instances:
  - {name: low, addresses: [0.0.0.0/1, "::/1"], security_groups: [servers]}
  - {name: private, addresses: [192.168.0.0/16, 172.16.0.0/12, "fe80::/10"], security_groups: [clients]}
"""


def rows() -> list[dict[str, str]]:
    with MANIFEST.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def is_readable(row: dict[str, str]) -> bool:
    link_types = set(row["link_types"].split(","))
    return (
        row["reads_cleanly"] == "yes" and not row["compression"] and link_types <= SUPPORTED
        and not row["file"].endswith(END_IN_ZEROS)
    )  # fmt: skip
