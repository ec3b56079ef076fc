"""Options and exit statuses that several commands share."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from sgfast.base.signals import Signalled, complete, is_stopped
from sgfast.base.spelling import did_you_mean
from sgfast.cli.printing import say

if TYPE_CHECKING:
    from sgfast.base.evidence import EvidenceCode
    from sgfast.policy.model import Policy
    from sgfast.traffic.capture import Damage
    from sgfast.traffic.flow_logs.log_records import LogRecords
    from sgfast.traffic.preprocess import TunnelKind

EXIT_FAIL_ON = 1
EXIT_BAD = 2
EXIT_DAMAGED = 3


def is_damaged(damage: Damage | None, records: LogRecords | None) -> bool:
    """Return whether a capture or a flow log could not be read whole."""
    return damage is not None or (records is not None and records.is_damaged)


def exit_status(*, damaged: bool, causes: Sequence[str] = (), files: bool = False) -> None:
    """End the command with the status for an interrupt, for a damaged input, or for a result that ``--fail-on`` or a
    similar option names. Return if none applies. ``causes``: the causes of status 1, in words. ``files``: whether the
    user asked for files.
    """
    if is_stopped():
        complete("the report is about what was judged" + (", and no file was written" if files else ""))
        raise Signalled(signal.SIGINT)
    if damaged:
        click.get_current_context().exit(EXIT_DAMAGED)
    if causes:
        say(f"status {EXIT_FAIL_ON}, because of {' and of '.join(causes)}")
        click.get_current_context().exit(EXIT_FAIL_ON)


def fail_on_causes(words: Iterable[str], matches: Mapping[str, bool], is_ruled_out: Mapping[str, bool]) -> list[str]:
    """Return the causes of status 1 among the words of ``--fail-on``. ``matches``: whether the result has what a word
    names. ``is_ruled_out``: whether the evidence would show it.
    """
    causes = []
    for word in dict.fromkeys(words):
        if matches[word]:
            causes.append(f"--fail-on {word}")
        elif not is_ruled_out[word]:
            causes.append(f"--fail-on {word}, which the evidence cannot rule out")
    return causes


OutputForm = Literal["text", "json", "markdown"]


class FileName(click.types.StringParamType):
    """A path that is not checked here, because opening it gives a better error. Shells complete it as a file."""

    name = "file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="file")]


FILE = FileName()


class PageName(FileName):
    """The path of a web page to write. A regular file must have a web page's ending."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from sgfast.base.names import printable
        from sgfast.base.output import ending, is_nameless

        if ending(value) not in _PAGE_ENDINGS and not is_nameless(value):
            self.fail(f"{printable(value)}: name a file that ends in {' or '.join(_PAGE_ENDINGS)}", param, ctx)
        return value


_PAGE_ENDINGS = (".html", ".htm")
PAGE = PageName()


class Choice(click.Choice):  # type: ignore[type-arg]
    """One of several words. An error suggests the word that was perhaps meant."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(error.message.rstrip(".") + did_you_mean(str(value), self.choices), param, ctx)


vpc_option = click.option(
    "--vpc",
    metavar="NAME",
    help="The VPC that the packets' addresses belong to, including its peers, by its name, id or label. Default: the "
    "VPC to which the policy maps each packet by VNI, VLAN, interface or file; without such a mapping, all VPCs at "
    "once.",
)
vni_option = click.option(
    "--vni",
    "vnis",
    metavar="VNI=VPC",
    multiple=True,
    help="Packets of VXLAN and Geneve tunnels with this network identifier belong to this VPC, as vni in the policy "
    "says. Repeatable.",
)


def refuse_vpc_and_vnis(vpc: str | None, vnis: tuple[str, ...]) -> None:
    if vpc is not None and vnis:
        raise click.UsageError("--vpc and --vni cannot be combined: with --vpc, all packets belong to one VPC")


def mapped(policy: Policy, vnis: tuple[str, ...]) -> Policy:
    """Return the policy with what ``--vni`` maps."""
    if not vnis:
        return policy
    from sgfast.base.errors import ArgumentError
    from sgfast.traffic.vpc_mapping import with_vnis

    try:
        return with_vnis(policy, vnis)
    except ArgumentError as error:
        raise click.UsageError(f"--vni: {error}") from None


#: The help on ends of a question (SPEC 12.2).
ENDS = (
    "an instance or a group by its name, id or label, an address group, an address, a CIDR, internet (public addresses "
    "that no instance has), or any"
)
as_if_in_option = click.option(
    "--as-if-in",
    metavar="GROUP[=ADDRESS]",
    multiple=True,
    help="Assume a machine that does not exist yet: it has this address and is in this group. Repeatable: groups of "
    "the same address are those of one machine. If there are several VPCs, it is in that of --vpc.",
)
mode_option = click.option(
    "--mode",
    type=Choice(["causal", "verbatim"]),
    default="causal",
    show_default=True,
    help="causal: packets that follow a denied opener are moot. verbatim: every packet is judged as captured.",
)
midstream_option = click.option(
    "--midstream",
    type=Choice(["infer", "deny", "allow"]),
    default="infer",
    show_default=True,
    help="TCP connections that began before the capture. infer: work out who opened them and judge that opener, during "
    "the first minutes; allow: the same at any time; deny: deny their packets.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    default=1,
    show_default=True,
    help="The number of threads that judge, 1 to 64. Results stay the same. One of the threads goes through the "
    "packets in order, which limits the gain.",
)


def by_option(
    *, rules: bool = True, of: str = "Rows of the report"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option ``--by``. ``rules``: whether rows can be folded by rule. ``of``: how the help begins."""
    return click.option(
        "--by",
        type=Choice(["group", "instance", "address", "service"] + ["rule"] * rules),
        default="group",
        show_default=True,
        help=f"{of}: who reaches whom by security groups and named networks, by instances or "
        + ("by addresses; services; or rules." if rules else "by addresses; or services."),
    )


top_option = click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="List N rows in each part of the report. Default: 10; 20 as Markdown; 1,000 with "
    "--json.",
)
quiet_option = click.option(
    "--quiet", "-q", is_flag=True, help="Print neither progress nor warnings on standard error."
)


def _tunnel_kinds(context: click.Context, option: click.Parameter, listed: str | None) -> tuple[TunnelKind, ...]:
    if listed is None:
        return ()
    from sgfast.traffic.preprocess.decap import KINDS

    words = [word.strip() for word in listed.split(",")]
    for word in words:
        if word not in (*KINDS, "auto"):
            hint = did_you_mean(word, (*KINDS, "auto"))
            raise click.BadParameter(f"{word!r} is not one of {', '.join(KINDS)}, auto{hint}")
    return KINDS if "auto" in words else tuple(kind for kind in KINDS if kind in words)


def _evidence_codes(
    context: click.Context, option: click.Parameter, codes: tuple[str, ...]
) -> tuple[EvidenceCode, ...]:
    from sgfast.base.errors import ArgumentError
    from sgfast.base.evidence import known_codes

    try:
        return known_codes(codes)
    except ArgumentError as error:
        raise click.BadParameter(str(error)) from None


accept_option = click.option(
    "--accept-evidence",
    callback=_evidence_codes,
    multiple=True,
    metavar="CODE",
    help="Accept the answer in spite of this reason to doubt it, which the report names. Repeatable.",
)


def replay_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--vpc`` and the options for reading captures.

    The command receives ``options``, a ``ReplayOptions``. It also holds the values of the command's other options that
    are named like its fields (``mode_option``, ``jobs_option``, ...).
    """

    @functools.wraps(command)
    def run(*arguments: Any, **given: Any) -> Any:
        if given["merge"] and given["follow"]:
            raise click.UsageError(
                "--merge and --follow cannot be combined: a growing file may still receive earlier packets"
            )
        from sgfast.questions.replaying.options import ReplayOptions
        from sgfast.traffic.read_options import ReadOptions

        reading = ReadOptions(**_pop_fields(given, ReadOptions))
        return command(*arguments, options=ReplayOptions(reading=reading, **_pop_fields(given, ReplayOptions)), **given)

    run = accept_option(vpc_option(run))
    for option in (
        click.option(
            "--decap",
            callback=_tunnel_kinds,
            metavar="LIST",
            help="Remove tunnel headers and judge the packets inside. A comma-separated list of vxlan, geneve, gre, "
            "ipip, 6in4, erspan, gtp-u, mpls and pppoe, or auto for all of these.",
        ),
        click.option(
            "--dedup",
            is_flag=True,
            help="Leave out duplicate packets, which captures of all interfaces (-i any) and of mirrors contain.",
        ),
        click.option(
            "--filter",
            metavar="EXPR",
            help='Only packets that EXPR matches, in tcpdump\'s syntax: "tcp port 443 and not host 10.0.0.5".',
        ),
        click.option("--end", metavar="TIME", help="Only packets before TIME, written as for --start."),
        click.option(
            "--start",
            metavar="TIME",
            help="Only packets from TIME on: a time after the very first packet (12.5, 2m, 1h30m), or "
            "2026-01-31T12:00:00Z. The remaining packets are numbered from 1.",
        ),
        click.option(
            "--follow",
            is_flag=True,
            help="Keep reading the last capture while it grows, like tail -f. The first Ctrl-C stops reading and "
            "prints the report as usual; the second interrupts. A pipe is read to its end.",
        ),
        click.option(
            "--merge",
            is_flag=True,
            help="Read the packets of all captures in the order of time. Default: one capture after another, in the "
            "order given.",
        ),
    ):
        run = option(run)
    return run


def _pop_fields(options: dict[str, Any], kind: type[Any]) -> dict[str, Any]:
    """Remove the values for which the dataclass ``kind`` has fields from ``options``, and return them."""
    return {field.name: options.pop(field.name) for field in fields(kind) if field.name in options}


def format_option(*more: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add ``--format`` (text, json or one of ``more``) and ``--json``, its short form. The command gets ``form``."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def run(*arguments: Any, form: str | None, as_json: bool, **options: Any) -> Any:
            if as_json and form not in (None, "json"):
                raise click.UsageError(f"--json means --format json: it cannot be combined with --format {form}")
            return command(*arguments, form="json" if as_json else form or "text", **options)

        run = click.option("--json", "as_json", is_flag=True, help="Short for --format json.")(run)
        return click.option(
            "--format",
            "form",
            type=Choice(["text", "json", *more]),
            help="The format of the report. Default: text.",
        )(run)

    return add
