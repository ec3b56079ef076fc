"""What stands in messages and reports in place of a name."""

from __future__ import annotations

import pytest

from sgfast import parse_policy
from sgfast.capture.names import printable
from sgfast.replaying import ReplayResult


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("s3://key:secret@bucket/a.pcap", "s3://…@bucket/a.pcap"),
        ("https://ann@host:8080/a@b.pcap", "https://…@host:8080/a@b.pcap"),
        ("https://host/a.pcap?X-Amz-Signature=abc&b=c#d", "https://host/a.pcap?…#d"),
        ("gzip: https://u:p@host/x?sig=1 cannot be read", "gzip: https://…@host/x?… cannot be read"),
        ("s3://bucket/a@b/c.pcap", "s3://bucket/a@b/c.pcap"),
        ("u:p@host/what?is=this", "u:p@host/what?is=this"),
        ("https://u:p'w@h/x.pcap?name=it's&sig=1", "https://…@h/x.pcap?…"),
        ("https://u:p@ss@h/x.pcap", "https://…@h/x.pcap"),
        ("a\nb", "a\\nb"), ("", "''"),
    ],
)  # fmt: skip
def test_credentials_in_urls_are_never_shown(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_a_result_does_not_know_them_either() -> None:
    policy = parse_policy("version: 1\n")
    result = ReplayResult(policy, "causal", "infer", None, ("s3://key:secret@bucket/a.pcap", "u:p@b"))
    assert result.captures == ("s3://…@bucket/a.pcap", "u:p@b")
