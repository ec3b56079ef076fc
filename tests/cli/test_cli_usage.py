"""Messages about wrong input say where it is, and what to type instead (SPEC 10.26, 11.8)."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from command import PCAPS, SHOP, sgfast, write_policy

from sgfast.base.errors import Place, PolicyError
from sgfast.cli.excerpt import error_lines, excerpt

Capsys = pytest.CaptureFixture[str]
POLICY, CAPTURE = SHOP
LOG, MONTH = str(PCAPS / "shop.aws.log"), str(PCAPS / "shop.month.log.gz")

# Errors in documents


def shown(capsys: Capsys, tmp_path: Path, text: str) -> list[str]:
    """The lines on standard error behind ``policy.yaml``, after the first message."""
    policy = write_policy(tmp_path, text)
    outcome = sgfast(capsys, "check", policy, "--json")
    assert outcome.status == 2 and outcome.out == "" and outcome.messages()
    return outcome.err.replace(f"sgfast: {policy}", "").rstrip("\n").split("\n")


def test_each_error_is_shown_in_its_line(capsys: Capsys, tmp_path: Path) -> None:
    rules = "{direction: inbund, protocol: tcp}", "{direction: inbound, protocol: tcp, ports: 99999}"
    text = "version: 1\nsecurity_groups:\n  - name: web\n    rules:\n" + "".join(f"      - {rule}\n" for rule in rules)
    first, *others = shown(capsys, tmp_path, text)
    assert first.startswith(":5: security_groups[0].rules[0].direction: must be one of")
    assert others == [
        "  5 |       - {direction: inbund, protocol: tcp}",
        "    |                     ^^^^^^",
        ":6: security_groups[0].rules[1].ports: '99999': ports range from 1 to 65535",
        "  6 |       - {direction: inbound, protocol: tcp, ports: 99999}",
        "    |                                                    ^^^^^",
    ]


def test_lines_are_counted_as_the_parser_counts_them(capsys: Capsys, tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r", "\u2028", "\x85"):
        document = f"\ufeffversion: 1{end}# a comment{end}vpcs: [{{name: 'a b'}}]\n"
        policy = tmp_path / "policy.yaml"
        policy.write_bytes(document.encode())
        outcome = sgfast(capsys, "check", policy)
        assert outcome.err.split("\n")[1:3] == ["  3 | vpcs: [{name: 'a b'}]", "    |               ^^^^^"], repr(end)


def test_syntax_errors_and_control_characters_are_shown_safely(capsys: Capsys, tmp_path: Path) -> None:
    assert shown(capsys, tmp_path, "version: 1\nvpcs: [a}\n")[1:] == ["  2 | vpcs: [a}", "    |         ^"]
    bell, *lines = shown(capsys, tmp_path, "version: 1\nvpcs: [\t\x1b[31m\u202e]\n")
    assert "control character" in bell and lines == ["  2 | vpcs: [ ?[31m?]", "    |         ^"]


def test_what_is_no_regular_file_is_not_read_again(
    capsys: Capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = b"version: 1\nvpcs: [{name: 'a b'}]\n"
    reading, writing = os.pipe()
    with open(reading), open(writing, "wb") as stream:
        stream.write(text)
        stream.close()
        outcome = sgfast(capsys, "check", f"/dev/fd/{reading}")
    assert outcome.status == 2 and ":2: vpcs[0].name" in outcome.one_line() and outcome.err.count("\n") == 1
    # Nor would it be if there were something left to read.
    reading, writing = os.pipe()
    with open(reading), open(writing, "wb") as stream:
        stream.write(text)
        stream.close()
        assert error_lines(PolicyError("wrong", Place(f"/dev/fd/{reading}", 2, 1, 2)), 80) == ["wrong"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    # Nor is a file that is called as standard input is.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("a secret\nof another file\n")
    outcome = sgfast(capsys, "check", "-")
    assert outcome.status == 2 and "<stdin>:2: vpcs[0].name" in outcome.one_line() and outcome.err.count("\n") == 1


def test_errors_beyond_those_listed_are_counted_in_the_last_line(capsys: Capsys, tmp_path: Path) -> None:
    lines = shown(capsys, tmp_path, "version: 1\nvpcs:\n" + "  - {}\n" * 30)
    assert len(lines) == 20 * 3 + 1 and lines[-1] == ": and 10 more errors"


WIDE = "東京" * 40


@pytest.mark.parametrize(
    ("line", "column", "end", "width", "expected"),
    [
        ("a: b", 4, 5, 80, ["  7 | a: b", "    |    ^"]),
        # A parser that misses something may name the end of the line, or a place behind it.
        ("a: [", 5, 6, 80, ["  7 | a: [", "    |     ^"]),
        ("a: [", 99, 120, 80, ["  7 | a: [", "    |     ^"]),
        ("", 1, 2, 80, ["  7 |", "    | ^"]),
        # Wide characters take two columns, combining ones none.
        ("東京: x", 5, 6, 80, ["  7 | 東京: x", "    |       ^"]),
        ("e\u0301: x", 5, 6, 80, ["  7 | e\u0301: x", "    |    ^"]),
        # A long line is cut at both sides of the place.
        (f"{'a' * 50}XYZ{'b' * 50}", 51, 54, 30, ["  7 | …aaaaaaXYZbbbbbbbbbbbb…", "    |        ^^^"]),
        (f"{'a' * 50}XYZ", 51, 54, 30, [f"  7 | …{'a' * 19}XYZ", f"    | {' ' * 20}^^^"]),
        (f"XYZ{'b' * 50}", 1, 4, 30, ["  7 | XYZbbbbbbbbbbbbbbbbbbb…", "    | ^^^"]),
        (WIDE, 41, 43, 30, ["  7 | …東京東京東京東京東京…", "    |      ^^^^"]),
        # The marked text may itself be too long.
        ("x: " + "y" * 90, 4, 94, 30, ["  7 | x: yyyyyyyyyyyyyyyyyyy…", "    |    ^^^^^^^^^^^^^^^^^^^^"]),
    ],
)  # fmt: skip
def test_excerpts_fit_and_carets_are_under_the_place(
    line: str, column: int, end: int, width: int, expected: list[str]
) -> None:
    assert excerpt(line, Place("p.yaml", 7, column, end), width) == expected


def test_of_a_line_of_millions_of_characters_only_those_near_the_place_are_looked_at() -> None:
    class Line(str):
        def __iter__(self) -> Any:
            raise AssertionError("the whole line")

        def __getitem__(self, part: Any) -> str:
            assert part.stop - part.start < 1000
            return super().__getitem__(part)

    (line, carets) = excerpt(Line("a" * 50_000 + "XYZ" + "b" * 50_000), Place("p.json", 1, 50_001, 50_004), 30)
    assert line == "  1 | …aaaaaaXYZbbbbbbbbbbbb…" and carets == "    |        ^^^"


# Words


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("rplay", *SHOP), "No such command 'rplay' (did you mean 'replay'?)"),
        (("replay", *SHOP, "--verdcts", "x"), "No such option '--verdcts' (did you mean '--verdicts'?)"),
        # A name that begins with the typed word comes before one that is only as similar.
        (("replay", *SHOP, "--conn", "x"), "(did you mean '--connections'?)"),
        (("replay", *SHOP, "--verd", "x"), "(did you mean '--verdicts'?)"),
        (("replay", *SHOP, "--decap", "auot"), "(did you mean 'auto'?)"),
        (("replay", *SHOP, "--mode", "verbatm"), "not one of 'causal', 'verbatim' (did you mean 'verbatim'?)"),
        (("replay", *SHOP, "--format", "jsno"), "(did you mean 'json'?)"),
        (("replay", *SHOP, "--decap", "vxlam"), "(did you mean 'vxlan'?)"),
        (("check", POLICY, "--fail-on", "eror"), "(did you mean 'error'?)"),
        (("check", POLICY, "--vpc", "mian"), "the policy has default"),
        (("diff", POLICY, POLICY, "--fail-on", "openned"), "(did you mean 'opened'?)"),
        (("export", POLICY, "--to", "teraform"), "(did you mean 'terraform'?)"),
        (("export", POLICY, "--to", "neutron"), "(did you mean 'openstack'?)"),
        (("import", "cfn", "x"), "(did you mean 'cloudformation'?)"),
        (("explain", POLICY, "--from", "web1", "--to", "db-1", "--protocol", "gre"), "(did you mean 'web-1'"),
        (("explain", POLICY, "--from", "web-1", "--to", "db1", "--protocol", "gre"), "(did you mean 'db-1'?)"),
        (("explain", POLICY, "--from", "web-1", "--to", "db-1", "--protocol", "tpc"), "(did you mean 'tcp'?)"),
        (("explain", POLICY, "--as-if-in", "wbe=10.0.0.9", "--from", "web-1", "--to", "db-1", "--protocol", "gre"),
         "(did you mean 'web'?)"),
        (("reach", POLICY, "--from", "wbe"), "(did you mean 'web'?)"),
        (("reach", POLICY, "--to", "internt"), "(did you mean 'internet'?)"),
        (("reach", POLICY, "--to", "default"), "is a VPC: name what is in it"),
        (("template", "all-port-open"), "(did you mean 'all-ports-open'?)"),
    ],
)  # fmt: skip
def test_the_nearest_word_is_named(capsys: Capsys, arguments: tuple[str, ...], hint: str) -> None:
    outcome = sgfast(capsys, *arguments)
    assert outcome.status == 2 and hint in outcome.one_line() and outcome.out == ""


def test_openstack_and_neutron_are_one_format_and_profiles_say_which_word_is_theirs(
    capsys: Capsys, tmp_path: Path
) -> None:
    export = str(PCAPS / "export")
    answers = [
        sgfast(capsys, "check", export, "--policy-format", word, "--json") for word in ("neutron", "openstack")
    ]
    assert answers[0].status == 0 and answers[0].out == answers[1].out and json.loads(answers[0].out)
    policy = write_policy(tmp_path, "version: 1\nsettings: {profile: openstack}\n")
    assert "not 'openstack' (did you mean 'neutron'?)" in sgfast(capsys, "check", policy).one_line()


# Habits of users of other tools


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("-r", CAPTURE), "'-r': name the capture without it, behind the policy: sgfast replay POLICY CAPTURE"),
        (("-nr", CAPTURE), "'-n': leave it out"),
        (("replay", POLICY, "-r", CAPTURE), "sgfast replay POLICY CAPTURE"),
        (("replay", *SHOP, "-w", "out.pcap"), "sgfast replay POLICY CAPTURE --write FILE.pcapng"),
        (("replay", *SHOP, "-Y", "tcp.port == 80"), "--filter 'tcp port 443'"),
        (("check", POLICY, "-f", "tcp"), "--filter 'tcp port 443'"),
        (("replay", POLICY, "-i", "eth0"), "tcpdump -i INTERFACE -U -w - | sgfast replay POLICY -"),
        ((POLICY, CAPTURE), "name a command before the files: sgfast replay POLICY CAPTURE"),
        (("missing.pcap",), "name a command before the files"),
        (("test.pcap",), "name a command before the files"),
        (("check", *SHOP), "sgfast check POLICY --traffic CAPTURE"),
        (("reach", POLICY, "web", "db"), "sgfast reach POLICY --from X --to Y"),
        (("explain", POLICY, "web-1", "db-1", "--from", "a", "--to", "b", "--protocol", "tcp"), "--from A --to B"),
        (("export", POLICY, POLICY, "--to", "aws"), "--since OLD"),
        (("replay", CAPTURE, POLICY), "holds captures, not a policy; policies stand before captures and flow logs"),
        (("replay", LOG, POLICY), "holds flow logs, not a policy; policies stand before captures and flow logs"),
        (("check", MONTH), "holds flow logs, not a policy"),
        (("replay", "", CAPTURE), "the name is empty, perhaps because a variable is not set"),
        (("replay", POLICY, ""), "the name is empty, perhaps because a variable is not set"),
        (("check", POLICY.replace("shop", "sop")), f"(did you mean '{POLICY}'?)"),
        (("replay", POLICY, CAPTURE.replace("shop", "sop")), f"(did you mean '{CAPTURE}'?)"),
        (("check", "C:\\nets\\policy.yaml"), "paths are written with / here; WSL has the drive at /mnt/c/"),
        (
            ("explain", POLICY, "--from", "web-1", "--to", "db-1", "--protocol", "https"),
            "https is a service: tcp or udp, with port 443",
        ),
        (("replay", POLICY, CAPTURE, "--start", "2026-11-20"), "say the time of day, too: 2026-11-20T00:00:00Z"),
        (("reach", CAPTURE), "holds captures, not a policy"),
        (("replay", POLICY, POLICY), "is a policy, not a capture; policies stand before captures"),
        (("suggest", POLICY), "is a policy, not a capture"),
    ],
)  # fmt: skip
def test_what_other_tools_would_understand_is_answered_with_what_to_type(
    capsys: Capsys, arguments: tuple[str, ...], hint: str
) -> None:
    outcome = sgfast(capsys, *arguments)
    assert outcome.status == 2 and hint in outcome.one_line() and outcome.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("import", "aws", "--live", "-r", "eu-central-1"), "No such option '-r' (try 'sgfast import --help')"),
        (("export", POLICY, "--to", "nftables", "-i", "web-1"), "No such option '-i' (try 'sgfast export --help')"),
        (("import", "aws", "x", "-w", "out"), "No such option '-w' (try 'sgfast import --help')"),
        (("check", POLICY, "--fail-on", "error", "warning"), "extra argument (warning) (try 'sgfast check --help')"),
        (("reach", POLICY, "--port", "80", "443"), "extra argument (443) (try 'sgfast reach --help')"),
        (("export", POLICY, "--to", "aws", "out.sh"), "extra argument (out.sh) (try 'sgfast export --help')"),
        (("export", POLICY), "Choose from: terraform, aws, openstack, otc, nftables (try"),
        (("completion", "pwsh"), "Invalid value for 'SHELL': 'pwsh' is not one of 'bash', 'zsh', 'fish' (try"),
    ],
)  # fmt: skip
def test_what_has_another_reason_gets_no_hint(capsys: Capsys, arguments: tuple[str, ...], message: str) -> None:
    outcome = sgfast(capsys, *arguments)
    assert outcome.status == 2 and message in outcome.one_line() and outcome.out == ""


def test_what_f_may_mean_is_told(capsys: Capsys) -> None:
    assert "'-f': --format says how the report is written" in sgfast(capsys, "check", POLICY, "-f", "json").one_line()


def test_a_folder_is_not_taken_for_the_policy_if_a_command_is_called_almost_so(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, hint in (("tests", " (did you mean 'test'?)"), ("captured", ": name a command before the files")):
        (tmp_path / name).mkdir()
        assert f"No such command {name!r}{hint}" in sgfast(capsys, name, *SHOP).one_line()


#: URLs as users type them, and as messages show them.
SECRET_URLS = pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host/x.pcap?signature=s", "https://…@host/x.pcap?…"),
        ("s3://user:pw/pw@host/x.pcap", "s3://…@host/x.pcap"),
        ("HTTPS://user:p@pw@host/x.pcap", "HTTPS://…@host/x.pcap"),
        ("https://host/a b.pcap?signature=s", "https://host/a b.pcap?…"),
        ("https://host/x.pcap#signature=s", "https://host/x.pcap#…"),
    ],
)


@SECRET_URLS
def test_wrong_usage_shows_no_password(capsys: Capsys, url: str, shown: str) -> None:
    for arguments in ((url,), ("check", POLICY, url), ("replay", *SHOP, "--mode", url), ("reach", POLICY, url)):
        message = sgfast(capsys, *arguments).one_line()
        assert shown in message and "pw" not in message and "signature" not in message


@SECRET_URLS
def test_a_url_in_the_place_of_a_document_shows_no_password(capsys: Capsys, url: str, shown: str) -> None:
    for arguments in (
        ("check", url), ("replay", url, SHOP[1]), ("diff", POLICY, url), ("test", POLICY, url), ("import", "auto", url),
        ("replay", *SHOP, "--changes", url), ("replay", *SHOP, "--expect", url),
    ):  # fmt: skip
        message = sgfast(capsys, *arguments).one_line()
        assert f"{shown}: cannot be read: only captures are read from URLs: download it" in message
        assert "pw" not in message and "signature" not in message


# Values that would be lost


def test_an_option_whose_first_value_would_be_ignored_is_refused(capsys: Capsys, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for arguments, words in (
        (("replay", *SHOP, "--verdicts", one, "--verdicts", other), "--verdicts is given twice"),
        (("replay", *SHOP, "--verdicts", one, "--verdicts", one, f"--verdicts={one}"), "--verdicts is given 3 times"),
        (("import", "auto", POLICY, "-o", one, "--output", other), "--output is given twice"),
        (("reach", POLICY, "--from", "web", "--from", "db"), "--from is given twice"),
    ):
        outcome = sgfast(capsys, *arguments)
        assert outcome.status == 2 and words in outcome.one_line() and outcome.out == ""
    assert not list(tmp_path.iterdir())
    # These mean something, or nothing else, when they are repeated.
    assert sgfast(capsys, "check", POLICY, "--fail-on", "error", "--fail-on", "SG001", "--json").status == 0
    assert sgfast(capsys, "replay", *SHOP, "-q", "-q", "--json", "--json").status == 0
    assert sgfast(capsys, "replay", "--mode", "a", "--mode", "b", "--help").out.startswith("Usage: sgfast replay")


def test_help_of_a_command_that_lacks_a_value_is_that_of_the_command(capsys: Capsys) -> None:
    assert "(try 'sgfast replay --help')" in sgfast(capsys, "replay", *SHOP, "--verdicts").one_line()


def test_a_page_is_html(capsys: Capsys, tmp_path: Path) -> None:
    for command in (("replay", *SHOP), ("reach", POLICY), ("diff", POLICY, POLICY)):
        for name in ("page.pdf", "page", "page.html.gz", "e\x1b.md"):
            outcome = sgfast(capsys, *command, "--report", tmp_path / name)
            assert outcome.status == 2 and "name a file that ends in .html or .htm" in outcome.one_line()
            assert not list(tmp_path.iterdir())
    assert sgfast(capsys, "reach", POLICY, "--report", tmp_path / "page.HTM").status == 0
    assert sgfast(capsys, "reach", POLICY, "--report", "/dev/null").status == 0
