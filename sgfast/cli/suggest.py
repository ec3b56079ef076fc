"""``sgfast suggest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from sgfast.base.signals import raise_arrived
from sgfast.cli.export import Export, ExportPart, export_options
from sgfast.cli.inputs import Inputs, open_outputs, sandbox_option
from sgfast.cli.options import (
    FILE,
    Choice,
    OutputForm,
    by_option,
    exit_status,
    format_option,
    is_damaged,
    quiet_option,
    replay_options,
)
from sgfast.cli.policies import PolicyOptions, policy_options
from sgfast.cli.printing import list_lengths, print_report, say, tell_of_input
from sgfast.cli.progress import progress_of

if TYPE_CHECKING:
    from sgfast.questions.replaying import ReplayOptions
    from sgfast.questions.suggesting import Suggestion
    from sgfast.report.rollup import By

NOT_EXACT = "the suggested policy does not allow exactly what it was made for"
FOR_OTHERS = "the suggested policy has rules that are also for instances to whom --policy denies this: see the warnings"


class _Prefixes(click.ParamType):  # type: ignore[type-arg]
    """A prefix length for IPv4 (``24``), or one each for IPv4 and IPv6 (``24,64``)."""

    name = "prefixes"

    def convert(
        self, value: str | tuple[int, int], parameter: click.Parameter | None, context: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        parts = value.split(",")
        if len(parts) <= 2 and all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
            four, six = int(parts[0]), int(parts[1]) if len(parts) == 2 else 128
            if four <= 32 and six <= 128:
                return four, six
        self.fail(f"{value!r} is not a prefix length: write 24, or 24,64 for IPv4 and IPv6", parameter, context)


@click.command(short_help="Suggest the fewest rules that captured traffic needs.")
@click.argument("captures", type=FILE, metavar="CAPTURE...", nargs=-1, required=True)
@click.option(
    "--instances",
    "instance_file",
    type=FILE,
    metavar="FILE",
    help="The instances to suggest rules for: a policy document, whose rules are ignored, or only its list of "
    "instances. Default: those of --policy, or else one for each private address that sends a packet.",
)
@click.option("--policy", metavar="POLICY", help="A policy to start from.")
@click.option(
    "--keep", is_flag=True,
    help="Keep --policy whole, and only add rules: the fewest that let through what it would break, which are denied "
    "connections that were answered.",
)
@click.option(
    "--remove", metavar="DURATION",
    help="Like --keep, but take away the rules of --policy that no packet used, if the captures last at least this "
    "long (30d, 12h) and carry the answer. Otherwise nothing is written, and the exit status is 1.",
)
@click.option(
    "--from",
    "source",
    type=Choice(["allowed", "all"]),
    help="The connections that the rules must allow. allowed: those that --policy allows (the default with --policy); "
    "all: those that were answered.",
)
@click.option(
    "--unanswered", is_flag=True,
    help="With --from all, --keep or --remove: also unanswered connections, such as syslog, which is one-way.",
)
@click.option(
    "-o",
    "--output",
    type=FILE,
    metavar="FILE",
    help="Write the suggested policy to FILE, with the evidence for each rule in comments.",
)
@click.option(
    "--per",
    type=Choice(["group", "instance"]),
    help="group (the default): rules for the groups that the instances are in; instances without groups share one if "
    "they offer the same services. instance: a group for each instance.",
)
@click.option(
    "--max-prefix",
    type=_Prefixes(),
    metavar="N[,N6]",
    help="Merge addresses into CIDRs as wide as /N, for IPv6 as wide as /N6. Default: 32,128, single addresses.",
)
@click.option(
    "--any-above",
    type=click.IntRange(0),
    metavar="N",
    help="Open a service that more than N public addresses use to any address. Default: never.",
)
@click.option(
    "--min-connections",
    type=click.IntRange(1),
    metavar="N",
    help="Leave out a port of a rule, for one source or destination, that fewer than N connections would use. "
    "Default: 1.",
)
@export_options("--to-format")
@replay_options
@format_option("markdown")
@by_option(rules=False)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    metavar="N",
    help="List N rows of traffic left out for each reason, and N rules, those with most connections. Default: 5 rows "
    "(1,000 with --json), and 30 rules; 20 rows of each list as Markdown.",
)
@policy_options
@sandbox_option
@quiet_option
def suggest(
    captures: tuple[str, ...],
    instance_file: str | None,
    policy: str | None,
    keep: bool,
    remove: str | None,
    source: Literal["allowed", "all"] | None,
    unanswered: bool,
    output: str | None,
    per: Literal["group", "instance"] | None,
    max_prefix: tuple[int, int] | None,
    any_above: int | None,
    min_connections: int | None,
    export: Export | None,
    options: ReplayOptions,
    policies: PolicyOptions,
    form: OutputForm,
    by: By,
    top: int | None,
    quiet: bool,
) -> None:
    """Suggest the fewest rules that would have allowed the connections in captures.

    Peers that are instances become groups. Other peers stay single addresses, unless --max-prefix or --any-above widens
    them. The captures are then replayed with the suggested policy: the report says whether the policy allows what it
    was made for; if not, or if nobody can tell from the captures, the exit status is 1. CAPTURE may be flow logs, as
    for sgfast replay. Captures are read several times, so they must be files. With "-o -" the policy goes to standard
    output, and the report to standard error. The format "markdown" is for pull requests.

    With --to, -o (by default standard output) gets the script or file for TARGET, in place of the policy. It assumes
    that the policy of --policy is in force, and only differences are written: with --keep it only adds rules, and with
    --remove it takes away unused rules, too.

    \b
    Examples:
      sgfast suggest monday.pcap --instances instances.yaml -o suggested.yaml
      sgfast suggest monday.pcap --policy today.yaml --keep --to aws -o add.sh
      sgfast suggest flow-logs/ --policy today.yaml --remove 30d --to aws -o change.sh
      sgfast suggest monday.pcap --policy today.yaml --from all --filter "not net 10.0.99.0/24"
    """
    from sgfast.questions.suggesting import ONLY_FILES, Limits, first_stream, load_instances
    from sgfast.questions.suggesting import suggest as run_suggest

    if (no_file := first_stream(captures)) is not None:
        raise click.UsageError(ONLY_FILES.format(no_file))
    if options.reading.follow:
        raise click.UsageError("captures are read several times and cannot be followed; leave out --follow")
    if instance_file is not None and policy is not None:
        raise click.UsageError("--policy already has instances; leave out --instances")
    if source == "allowed" and policy is None:
        raise click.UsageError("--from allowed needs --policy, which says what is allowed")
    _check_keep(policy, keep, remove, source, per, export)
    if unanswered and policy is not None and source != "all" and not keep and remove is None:
        raise click.UsageError("--unanswered needs --from all: what --policy allows counts whether answered or not")
    from sgfast.base.output import is_standard_output

    if export is not None:
        parts = export.parts(output or "-", is_change=policy is not None)
    else:
        parts = [] if output is None else [ExportPart(output)]
    outputs = [part.path for part in parts]
    to_error = any(map(is_standard_output, outputs))
    inputs = Inputs([policy], captures, [instance_file])
    with (
        open_outputs(outputs, inputs, quiet=quiet) as opened,
        progress_of(captures, shown=not quiet) as progress,
    ):
        before = None if policy is None else policies.load(policy)
        # Options that the user did not give keep the library's defaults.
        widening = {
            "max_prefix": max_prefix, "any_above": any_above, "min_connections": min_connections,
            "both_versions": None if export is None else export.unites_versions,
        }  # fmt: skip
        suggestion = run_suggest(
            captures,
            instances=None if instance_file is None else load_instances(instance_file),
            policy=before,
            unanswered=unanswered,
            keep=keep,
            remove=remove,
            limits=Limits(**_chosen(widening)),
            **_chosen({"per": per, "allowed_only": None if source is None else source == "allowed"}),
            vpc=options.vpc,
            reading=options.reading,
            accept_evidence=options.accept_evidence,
            progress=progress,
        )
        raise_arrived()
        refusal = "" if remove is None else _refusal(suggestion)
        if refusal:
            say(f"nothing is written: {refusal}")
        elif export is not None:
            export.write(parts, opened, before, suggestion.policy, suggestion.cautions, policy)
        elif opened:
            opened[0].write(suggestion.text.encode())
            opened[0].publish()

    from sgfast.report.suggestion import MOST_LEFT_OUT, TOP, suggestion_document

    tell_of_input(form, suggestion.warnings, quiet=quiet, to_error=to_error)
    if not quiet and not suggestion.policy.instances:
        say("warning: no private address sends a packet; name the instances with --instances")
    tell_of_input(form, (), suggestion.damaged, to_error=to_error)
    lengths = list_lengths(form, top, TOP, MOST_LEFT_OUT)

    def answer() -> dict[str, Any]:
        # This also imports the modules that compare policies.
        from sgfast.report.json.suggestion import suggestion_answer

        return suggestion_answer(suggestion, by, top)

    print_report(form, answer, lambda: suggestion_document(suggestion, by, *lengths), to_error=to_error)
    if suggestion.damaged is None and not suggestion.check.matches and not refusal:
        allows_all = suggestion.check.allowed == suggestion.check.claimed
        say(FOR_OTHERS if allows_all and any(suggested.denied_members for suggested in suggestion.rules) else NOT_EXACT)
    if suggestion.evidence.conclusive == "no" and not refusal:
        say("nobody can rely on the suggested policy: the report says what the captures lack")
    causes = ["a suggestion that falls short"] if refusal or not suggestion.is_reliable else []
    exit_status(damaged=is_damaged(suggestion.damaged, suggestion.records), causes=causes)


def _check_keep(
    policy: str | None, keep: bool, remove: str | None, source: str | None, per: str | None, export: Export | None
) -> None:
    """Raise UsageError for options that do not go together."""
    if keep or remove is not None:
        option = "--keep" if remove is None else "--remove"
        if policy is None:
            raise click.UsageError(f"{option} needs --policy, which is the policy to keep")
        if keep and remove is not None:
            raise click.UsageError("--keep takes no rule away, and --remove does: leave one of them out")
        if source is not None:
            raise click.UsageError(f"{option} is for the connections that --policy would break: leave out --from")
        if per == "instance":
            raise click.UsageError(f"{option} keeps the groups of --policy: leave out --per instance")
        if remove is not None:
            from sgfast.traffic.time_window import parse_duration

            parse_duration(remove, "--remove")
    elif policy is not None and export is not None:
        raise click.UsageError(
            "--to with --policy needs --keep, with which the script only adds rules, or --remove DURATION (such as "
            "30d), with which it also takes away the rules that captures of at least that time did not use"
        )


def _refusal(suggestion: Suggestion) -> str:
    """Return why the captures do not justify taking rules away; empty if they do."""
    if is_damaged(suggestion.damaged, suggestion.records):
        return "a capture or log cannot be read whole, so the rest of its traffic may need what would be taken away"
    if not suggestion.check.matches:
        return NOT_EXACT
    for reason in suggestion.evidence.open_reasons:
        if reason.code == "unsure-openers":
            continue        # rules that either reading may need are kept
        return f"{reason.sentence} (--accept-evidence {reason.code} takes rules away all the same)"
    return ""


def _chosen(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
