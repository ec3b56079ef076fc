"""Networks are never keys by Python's hash, which whoever writes a file or sends packets can make equal (SPEC 11)."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, sgfast

from sgfast.policy.networks import network_key, without_duplicates


def test_keys_are_equal_for_equal_networks_only() -> None:
    texts = ["0.0.0.0/0", "0.0.0.0/1", "0.0.0.0/32", "10.0.0.0/8", "::/0", "::/32", "::/128", "a00::/8", "1:2::/32"]
    networks = [ip_network(text) for text in texts]
    assert len({network_key(network) for network in networks}) == len(networks)
    assert without_duplicates(ip_network(text) for text in texts * 2) == tuple(networks)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_no_network_is_hashed(
    engine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def hashed(network: Any) -> int:
        raise AssertionError(f"{network} was hashed")

    for kind in (IPv4Network, IPv6Network):
        monkeypatch.setattr(kind, "__hash__", hashed)
    policy, capture = PCAPS / "shop.yaml", PCAPS / "shop.pcap"
    changes = tmp_path / "changes.yaml"
    changes.write_text((PCAPS / "shop.changes.yaml").read_text())
    commands = [["replay", policy, capture, "--engine", engine, "--changes", changes]]
    if engine == "fast":
        commands += [
            ["replay", policy, capture, "--report", tmp_path / "page.html"],
            ["check", policy, "--traffic", capture],
            ["diff", policy, policy, capture],
            ["suggest", capture, "--policy", policy],
            ["suggest", capture],
            ["explain", policy, "--from", "10.0.0.5", "--to", "web-1", "--protocol", "tcp", "--port", "80"],
            ["import", "auto", PCAPS / "export"],
        ]
    for command in commands:
        done = sgfast(capsys, *command)
        assert done.status in (0, 1) and "was hashed" not in done.err, (command, done.err)
