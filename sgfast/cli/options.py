"""Options and exit statuses that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

EXIT_FAIL_ON = 1
EXIT_BAD = 2
EXIT_DAMAGED = 3

Form = Literal["text", "json", "markdown"]


class FileName(click.types.StringParamType):
    """A path, as it is: whoever opens it says what is wrong with it. Shells complete it as one."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


FILE = FileName()

vpc_option = click.option(
    "--vpc",
    metavar="NAME",
    help="The VPC the packets' addresses belong to; its peers are seen, too. Default: what the policy says of VNI, "
    "VLAN, interface or file, else all VPCs at once.",
)
mode_option = click.option(
    "--mode",
    type=click.Choice(["causal", "verbatim"]),
    default="causal",
    show_default=True,
    help="causal: what followed a denied opener is moot. verbatim: every packet is judged as it came.",
)
midstream_option = click.option(
    "--midstream",
    type=click.Choice(["infer", "deny", "allow"]),
    default="infer",
    show_default=True,
    help="TCP connections that began before the capture: judge who must have opened them (infer: within the first "
    "minutes; allow: at any time), or deny their packets.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="Threads that judge, 1 to 64; results are the same. It pays with many connections (hundred thousands).",
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Neither progress nor warnings on standard error; the report has them."
)


def _tunnels(context: click.Context, option: click.Parameter, given: str | None) -> tuple[str, ...]:
    if given is None:
        return ()
    from sgfast.preprocess.decap import KINDS

    words = [word.strip() for word in given.split(",")]
    for word in words:
        if word not in (*KINDS, "auto"):
            raise click.BadParameter(f"{word!r} is not one of {', '.join(KINDS)}, auto.")
    return KINDS if "auto" in words else tuple(kind for kind in KINDS if kind in words)


def replay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How captures are read, and ``--vpc``. The command gets ``options``, a ``ReplayOptions`` of these and of all that
    it has besides and that are named like one of its fields (``mode_option``, ``jobs_option``, ...).
    """

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> Any:
        if given["merge"] and given["follow"]:
            raise click.UsageError("--merge and --follow do not go together: a growing file may get earlier packets")
        from sgfast.replaying.options import Reading, ReplayOptions

        reading = Reading(**_taken(given, Reading))
        return command(*arguments, options=ReplayOptions(reading=reading, **_taken(given, ReplayOptions)), **given)

    run = vpc_option(run)
    for option in (
        click.option(
            "--decap",
            callback=_tunnels,
            metavar="LIST",
            help="Take tunnels off and judge what is inside: vxlan, geneve, gre, ipip, 6in4, erspan, gtp-u, mpls, "
            "pppoe, several with commas; or auto, all of these.",
        ),
        click.option(
            "--dedup",
            is_flag=True,
            help="Leave out copies of a packet, as captures of all interfaces (-i any) and of mirrors have them.",
        ),
        click.option(
            "--filter",
            metavar="EXPR",
            help='Only packets that EXPR matches, in tcpdump\'s words: "tcp port 443 and not host 10.0.0.5".',
        ),
        click.option("--end", metavar="TIME", help="Only packets before TIME, likewise."),
        click.option(
            "--start",
            metavar="TIME",
            help="Only packets from TIME on: after the first one of all (12.5, 2m, 1h30m), or 2026-01-31T12:00:00Z. "
            "What is left is numbered from 1.",
        ),
        click.option(
            "--follow",
            is_flag=True,
            help="Read the last capture on while it grows, like tail -f. The first Ctrl-C ends it, and the report is "
            "made as usual; the second one interrupts. A pipe is read to its end.",
        ),
        click.option(
            "--merge",
            is_flag=True,
            help="Packets of all captures in the order of time; otherwise capture after capture, in the order given.",
        ),
    ):
        run = option(run)
    return run


def _taken(given: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Takes out of ``given`` what a dataclass has fields for."""
    return {field.name: given.pop(field.name) for field in fields(kind) if field.name in given}


def format_option(*more: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--format`` text, json or one of ``more``, and ``--json``, short for the second: the command gets ``form``."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*arguments: Any, form: str | None, as_json: bool, **options: Any) -> Any:
            if as_json and form not in (None, "json"):
                raise click.UsageError(f"--json is short for --format json, and does not go with --format {form}")
            return command(*arguments, form="json" if as_json else form or "text", **options)

        run = click.option("--json", "as_json", is_flag=True, help="Short for --format json.")(run)
        return click.option(
            "--format",
            "form",
            type=click.Choice(["text", "json", *more]),
            help="Of the report: text (the default) for people, json for programs.",
        )(run)

    return add
