"""An option of a replay stands in one place, and reaches whoever asks for it or needs it."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SHOP
from command import sgfast as sgfast_command

import sgfast
from sgfast.base.errors import ArgumentError
from sgfast.cli.check import check as check_command
from sgfast.cli.diff import diff as diff_command
from sgfast.cli.replay import replay as replay_command
from sgfast.cli.suggest import suggest as suggest_command
from sgfast.questions import suggesting
from sgfast.questions.replaying.options import ReplayOptions
from sgfast.report.json.suggestion import suggestion_answer
from sgfast.traffic.read_options import ReadOptions

PACKAGE = Path(sgfast.__file__).parent
OPTIONS = {field.name: field.default for field in fields(ReplayOptions)}
del OPTIONS["is_of_logs"]       # the replay finds it out
#: The library takes a client where the command takes an address. The command saves to a file that it opened, and keeps
#: no tables in memory.
NOT_OPTIONS_OF_THE_COMMAND = {"reading", "client", "snapshot", "tables"}


def test_no_option_is_missing_among_the_keywords_or_has_another_default_there() -> None:
    keywords = inspect.signature(sgfast.replay).parameters
    assert {name: keywords[name].default for name in OPTIONS} == {**OPTIONS, "reading": None}
    keywords = inspect.signature(sgfast.diff).parameters
    for name in ("mode", "midstream", "vpc", "jobs"):
        assert keywords[name].default == OPTIONS[name]


def test_no_option_is_missing_on_the_command_line_or_has_another_default_there() -> None:
    given = {parameter.name: parameter.default for parameter in replay_command.params}
    assert OPTIONS.keys() - NOT_OPTIONS_OF_THE_COMMAND <= given.keys()
    for name in ("mode", "midstream", "engine", "jobs"):
        assert given[name] == OPTIONS[name]


@pytest.mark.parametrize("command", [replay_command, diff_command, suggest_command, check_command])
def test_captures_are_read_by_the_same_options_whichever_command_reads_them(command: Any) -> None:
    names = {parameter.name for parameter in command.params}
    assert {field.name for field in fields(ReadOptions)} | {"vpc"} <= names


@pytest.mark.parametrize("policy", [None, SHOP[0]])
def test_suggest_has_the_same_defaults_in_the_library_and_on_the_command_line(
    policy: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = inspect.signature(suggesting.suggest)
    asked: list[dict[str, Any]] = []

    def recorded(*values: Any, **keywords: Any) -> suggesting.Suggestion:
        bound = signature.bind(*values, **keywords)
        bound.apply_defaults()
        asked.append(bound.arguments)
        return suggesting_suggest(*values, **keywords)

    suggesting_suggest = suggesting.suggest
    monkeypatch.setattr(suggesting, "suggest", recorded)
    given = sgfast_command(capsys, "suggest", SHOP[1], *(["--policy", policy] if policy else []))
    monkeypatch.undo()
    # The library takes None for all defaults of these two.
    (by_command,) = asked
    assert by_command.pop("limits") == suggesting.Limits() and by_command.pop("reading") == ReadOptions()
    policy_given = by_command.pop("policy")
    assert (policy_given is None) == (policy is None)
    for name in ("captures", "progress"):
        del by_command[name]
    assert by_command == {name: signature.parameters[name].default for name in by_command}
    assert given.status == 0 and str(sgfast.suggest(SHOP[1], policy=policy)) + "\n" == given.out


def test_what_the_help_of_suggest_calls_the_default_is_the_default() -> None:
    helps = {option.name: getattr(option, "help", None) or "" for option in suggest_command.params}
    limits, keywords = suggesting.Limits(), inspect.signature(suggesting.suggest).parameters
    told = {name: text.rpartition("Default: ")[2].rstrip(".") for name, text in helps.items() if "Default: " in text}
    assert told["max_prefix"] == f"{limits.max_prefix[0]},{limits.max_prefix[1]}, single addresses"
    assert told["min_connections"] == str(limits.min_connections)
    assert told["any_above"] == "never" and limits.any_above is None
    assert helps["per"].startswith(f"{keywords['per'].default} (the default): ")
    assert "allowed: those that --policy allows (the default with --policy)" in helps["source"]
    parsed = suggest_command.make_context("suggest", ["a.pcap"]).params
    defaults = inspect.signature(suggestion_answer).parameters
    assert [parsed[name] for name in ("by", "top")] == [defaults[name].default for name in ("by", "top")]


def test_options_that_were_checked_stay_as_they_are() -> None:
    options = ReplayOptions()
    with pytest.raises(FrozenInstanceError):
        options.mode = "loose"  # type: ignore[misc, assignment]


@pytest.mark.parametrize(
    ("given", "captures", "words"),
    [
        ({"engine": "reference"}, ("a.pcap",), "connection report"),
        ({"engine": "reference", "resume": "state"}, ("a.pcap",), "connection report"),
        ({"client": object(), "engine": "reference"}, ("a.pcap",), "cluster"),
        ({"client": object(), "snapshot": "state"}, ("a.pcap",), "cluster"),
        ({"client": object(), "jobs": 2}, ("a.pcap",), "cluster"),
        ({"client": object(), "reading": ReadOptions(follow=True)}, ("a.pcap",), "cluster"),
        ({"client": object()}, ("a.pcap", "-"), "cluster"),
        ({"client": object(), "shards": 4097}, ("a.pcap",), "shards must be 1 to 4096, not 4097"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], captures: tuple[str, ...], words: str) -> None:
    options = ReplayOptions(**given)
    with pytest.raises(ArgumentError, match=words):
        options.check(captures, reports_connections=True)


def test_numbers_and_single_texts_mean_what_their_texts_and_lists_mean() -> None:
    seconds: list[Any] = [1, 1.5, np.float64(1.5), np.int64(1)]
    texts = [ReadOptions(start=str(each), end="9") for each in seconds]
    assert [ReadOptions(start=each, end=9) for each in seconds] == texts
    # Python writes small and large numbers with an exponent.
    exact: list[Any] = [0.00005, 0, 1e-9, 10, 1000000000.1, Fraction(1, 4), np.float32(0.5), 1e-12]
    texts = ["0.00005", "0", "0.000000001", "10", "1000000000.1", "0.25", "0.5", "0"]
    assert [ReadOptions(start=each).start for each in exact] == texts
    assert ReadOptions(decap="vxlan") == ReadOptions(decap=["vxlan"]) == ReadOptions(decap=("vxlan",))  # type: ignore[arg-type]
    once, twice = (sgfast.replay(*SHOP, reading=ReadOptions(start=each)) for each in (2, "2"))
    assert once.packets == twice.packets < 261
    policy = sgfast.load(SHOP[0])
    assert policy.check(as_if_in="db=10.9.9.9").assumed == policy.check(as_if_in=["db=10.9.9.9"]).assumed != ()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ReadOptions(start=["1"]), r"start must be a text, a number of seconds or a datetime, not \['1'\]"),  # type: ignore[arg-type]
        (lambda: ReadOptions(filter=5), "filter must be a text in tcpdump's syntax, not 5"),  # type: ignore[arg-type]
        (lambda: ReadOptions(decap=5), "decap must be kinds of tunnels, vxlan, .*, not 5"),  # type: ignore[arg-type]
        (lambda: ReadOptions(decap="vxlam"), "'vxlam' is not a kind of tunnel"),
        (lambda: ReadOptions(start=True), "start must be a text, a number of seconds or a datetime, not True"),
        (lambda: ReadOptions(end=float("nan")), "end must be 0 to [0-9,]+ seconds after the first packet, not nan"),
        (lambda: ReadOptions(start=-1), "start must be 0 to [0-9,]+ seconds after the first packet, not -1"),
        (lambda: ReadOptions(end=10**400), "end must be 0 to [0-9,]+ seconds after the first packet, not 10{79}"),
        (lambda: ReadOptions(merge="x"), "merge must be True or False, not 'x'"),  # type: ignore[arg-type]
        (lambda: ReadOptions(dedup=1), "dedup must be True or False, not 1"),  # type: ignore[arg-type]
        (lambda: sgfast.replay(*SHOP, reading={"start": 1}), "reading must be a sgfast.ReadOptions, not {'start': 1}"),  # type: ignore[arg-type]
        (lambda: sgfast.replay(SHOP[0], []), "there are no captures: give at least one path"),
        (lambda: sgfast.suggest([]), "there are no captures: give at least one path"),
    ],
)
def test_what_reads_nothing_is_refused_in_one_line(call: Any, words: str) -> None:
    with pytest.raises(sgfast.SgfastError, match=f"^{words}$|^{words}: ") as raised:
        call()
    assert str(raised.value).isprintable()


def test_what_goes_together_is_not_refused() -> None:
    for options in (
        ReplayOptions(), ReplayOptions(engine="fast", jobs=4, snapshot="state", resume="earlier"),
        ReplayOptions(client=object(), shards=7, resume="folder"),
    ):  # fmt: skip
        options.check((SHOP[1],), reports_connections=True)
    ReplayOptions(engine="reference").check((SHOP[1],), reports_connections=False)
