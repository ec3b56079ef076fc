"""POLICY arguments of commands: a policy document, or a cloud's export (SPEC 2.11, 2.13)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import click

from sgfast.cli.options import Choice
from sgfast.clouds.providers import FORMATS as KNOWN_FORMATS

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.policy.export_files import Unresolved
    from sgfast.policy.model import Policy
    from sgfast.policy.profile_data import ExportFormat

FORMATS = ("auto", *KNOWN_FORMATS)
#: Other words for formats.
SYNONYMS: dict[str, ExportFormat] = {"openstack": "neutron"}


class _UnresolvedText(click.ParamType):  # type: ignore[type-arg]
    """A word for what is unresolved, or a group with its addresses, as a key and a value of ``Unresolved``."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from sgfast.policy.export_files import OTHERS, UnresolvedWord

        group, equals, addresses = str(value).rpartition("=")
        if not equals:
            return OTHERS, Choice(get_args(UnresolvedWord)).convert(value, param, ctx)
        if not group or not all(texts := [text.strip() for text in addresses.split(",")]):
            self.fail(f"{value!r} is not GROUP=ADDRESS[,ADDRESS]...", param, ctx)
        return group, texts


unresolved_option = click.option(
    "--unresolved",
    type=_UnresolvedText(),
    multiple=True,
    callback=lambda context, parameter, values: dict(values) or "error",
    metavar="error|empty|GROUP=ADDRESSES",
    help="What to do if an export refers to groups or lists that are in none of its files. error: list them all (the "
    "default); empty: nobody is known to be in them; GROUP=ADDRESSES: these addresses, CIDRs or ranges, with commas, "
    "are in the group or list with this id. Repeatable.",
)


@dataclass(frozen=True)
class PolicyOptions:
    """Options about every POLICY of a command."""

    format: ExportFormat
    unresolved: Unresolved

    def load(self, path: str, lines: Lines | None = None) -> Policy:
        from sgfast.base.errors import PolicyError
        from sgfast.clouds.loading import load_policy
        from sgfast.policy.yaml_nodes import shown_origin

        try:
            return load_policy(path, lines, format=self.format, unresolved=self.unresolved)
        except PolicyError:
            from sgfast.traffic.flow_logs.sources import kind_of_traffic

            if (kind := kind_of_traffic(path)) is None:
                raise
            message = f"{shown_origin(path)}: holds {kind}, not a policy; policies stand before captures and flow logs"
            raise PolicyError(message) from None

    def load_baseline(self, path: str) -> Policy:
        """Load an earlier policy. Of a Terraform plan, it is the state before the plan."""
        from sgfast.clouds.terraform.plan import is_plan, load_plan

        return load_plan(path, self.unresolved)[0] if is_plan(path) else self.load(path)


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--policy-format`` and ``--unresolved``. The command gets them as ``policies``."""

    @functools.wraps(command)
    def run(*arguments: Any, policy_format: ExportFormat, unresolved: Unresolved, **options: Any) -> Any:
        policies = PolicyOptions(SYNONYMS.get(policy_format, policy_format), unresolved)
        return command(*arguments, policies=policies, **options)

    run = unresolved_option(run)
    return click.option(
        "--policy-format",
        type=Choice((*FORMATS, *SYNONYMS)),
        default="auto",
        show_default=True,
        help="The format of a POLICY that is a cloud's export. auto: detect it.",
    )(run)
