"""Text that messages and reports show in place of a name."""

from __future__ import annotations

import pytest

from sgfast.base.errors import CaptureError
from sgfast.base.names import listed, printable
from sgfast.base.streams.urls import open_url
from sgfast.clouds.loading import parse_policy
from sgfast.questions.replaying import ReplayResult


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("s3://key:secret@bucket/a.pcap", "s3://…@bucket/a.pcap"),
        ("https://ann@host:8080/a@b.pcap", "https://…@host:8080/a@b.pcap"),
        ("https://host/a.pcap?X-Amz-Signature=abc&b=c#d", "https://host/a.pcap?…"),
        ("gzip: https://u:p@host/x?sig=1 cannot be read", "gzip: https://…@host/x?… cannot be read"),
        ("s3://bucket/a@b/c.pcap", "s3://bucket/a@b/c.pcap"),
        ("s3://bucket/12:30@b.pcap", "s3://bucket/12:30@b.pcap"),
        ("u:p@host/what?is=this", "u:p@host/what?is=this"),
        ("https://u:p'w@h/x.pcap?name=it's&sig=1", "https://…@h/x.pcap?…"),
        ("https://u:p@ss@h/x.pcap", "https://…@h/x.pcap"),
        ("a\nb", "a\\nb"), ("", "''"),
        # A user may not know that a slash in a password has to be written as %2F.
        ("https://user:pa/ss@host/x.pcap", "https://…@host/x.pcap"),
        ("s3://key:sec/ret@bucket/a/b.pcap", "s3://…@bucket/a/b.pcap"),
        ("https://ann@mail.example:pa/ss@host/x", "https://…@host/x"),
        ("https://user:/pass@host/x", "https://…@host/x"),
        ("https://user:12/ss@host/x", "https://…@host/x"),
        ("https://user:p@ss/wo@rd@host/x", "https://…@host/x"),
        ("https://user:pa ss@host/a b.pcap", "https://…@host/a b.pcap"),
        ("https://user:p://w@host/x", "https://…@host/x"),
        # Whether this is a password or a query, nothing of it is shown.
        ("https://user:pa?ss@host/x", "https://…"),
        ("https://user:pa#ss@host/x?sig=1", "https://…"),
        ("http://minio:9000/x?by=a@b&sig=1", "http://…"),
        ("https://host/x?by=a@b&sig=1", "https://host/x?…"),
        ("https://host/x?to=https://u:p@h&sig=1", "https://host/x?…"),
        ("HTTPS://U:P@HOST/X?SIG=1", "HTTPS://…@HOST/X?…"),
        ("https://host/a b?X-Amz-Signature=abc", "https://host/a b?…"),
        ("https://host/a b?name=c d&X-Amz-Signature=abc e", "https://host/a b?…"),
        ("https://host/x#token=abc", "https://host/x#…"),
        ("https://host/x#a b", "https://host/x#…"),
        ("https://host/x?", "https://host/x?"), ("https://host/x#", "https://host/x#"),
        ("zip://a.pcap::https://u:pa/ss@host/x.zip?sig=1", "zip://…@host/x.zip?…"),
        ("filter://in/a::https://u:pa/ss@host/x.zip", "filter://in/a::https://…@host/x.zip"),
        ("simplecache::s3://key:sec/ret@bucket/x?sig=1", "simplecache::s3://…@bucket/x?…"),
        # Messages.
        ("s3://b/x.pcap: may not be read (user/ann@site is not allowed)",
         "s3://b/x.pcap: may not be read (user/ann@site is not allowed)"),
        ("https://h:1/x.pcap: 403, url='https://h:1/x?sig=1', and s3://k:s/e@b/y#z is, too",
         "https://h:1/x.pcap: 403, url='https://h:1/x?… and s3://…@b/y#… is, too"),
        ("from https://u:p/w@h/x to https://h/y?z=1, https://v:q@h/z.", "from https://…@h/x to https://h/y?… https://…@h/z."),
        ("a=https://u:p/w@h/x,b=https://v:q/w@h/y", "a=https://…@h/y"),
        ("no such file: 'https://host/a b?c=d e&sig=1'", "no such file: 'https://host/a b?…"),
        ("Path 'https://host/a b#token=1' is none", "Path 'https://host/a b#… is none"),
    ],
)  # fmt: skip
def test_credentials_in_urls_are_never_shown(name: str, shown: str) -> None:
    assert printable(name) == shown
    # Messages have names in which nothing is left to hide.
    assert printable(shown) == shown or name in ("", "a\nb")
    assert printable(f"{printable(name)}: is no capture; try again") == f"{printable(name)}: is no capture; try again"


@pytest.mark.parametrize(
    "url",
    ["ftp://user:pa/ss@host/x.pcap", "github://user:pa?ss@host/x", "filter://a/b::ftp://user:pa#ss@host/x",
     "zip://*.pcap::webhdfs://user:pa/ss@host/x"],
)  # fmt: skip
def test_a_library_that_takes_a_part_of_a_password_for_a_port_is_not_quoted(url: str) -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(CaptureError) as caught:
        open_url(url)
    assert str(caught.value) == (
        f"{printable(url)}: cannot be opened: write / ? # and @ in its user name and password as %2F %3F %23 %40"
    )


def test_a_library_is_quoted_if_the_host_is_known() -> None:
    pytest.importorskip("fsspec")
    for url in ("unknown://host:80/a@b.pcap", "unknown://user:pw@host/x.pcap", "unknown://host/a:b@c"):
        with pytest.raises(CaptureError, match="Protocol not known: unknown"):
            open_url(url)


def test_a_result_does_not_know_them_either() -> None:
    policy = parse_policy("version: 1\n")
    result = ReplayResult(
        policy, mode="causal", midstream="infer", vpc=None, captures=("s3://key:secret@bucket/a.pcap", "u:p@b")
    )
    assert result.captures == ("s3://…@bucket/a.pcap", "u:p@b")


def test_names_in_a_list_are_on_one_line_and_without_secrets() -> None:
    names = ["a\nb", "s3://key:secret@bucket/x?token=1", "c", "d", "e", "f"]
    assert listed(names) == "a\\nb, s3://…@bucket/x?…, c, d, e and 1 more"
    assert listed(names[:2]) == "a\\nb and s3://…@bucket/x?…"
