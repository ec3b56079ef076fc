"""POLICY arguments of commands: a policy document, or a cloud's export (SPEC 2.11, 2.13)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from sgfast.cli.options import Choice
from sgfast.importing.formats import FORMATS as KNOWN_FORMATS

if TYPE_CHECKING:
    from sgfast.policy.document_reader import Lines
    from sgfast.policy.model import Policy

FORMATS = ("auto", *KNOWN_FORMATS)
#: Other words for formats.
SYNONYMS = {"openstack": "neutron"}

unresolved_option = click.option(
    "--unresolved",
    type=Choice(["error", "empty"]),
    default="error",
    show_default=True,
    help="What to do if an export refers to groups or lists that are in none of its files. error: list them all; "
    "empty: nobody is in them.",
)


@dataclass(frozen=True)
class PolicyOptions:
    """Options about every POLICY of a command."""

    format: str
    unresolved: Literal["error", "empty"]

    def load(self, path: str, lines: Lines | None = None) -> Policy:
        from sgfast.loading import load_policy

        return load_policy(path, lines, format=self.format, unresolved=self.unresolved)


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--policy-format`` and ``--unresolved``. The command gets them as ``policies``."""

    @functools.wraps(command)
    def run(*arguments: Any, policy_format: str, unresolved: Literal["error", "empty"], **given: Any) -> Any:
        policies = PolicyOptions(SYNONYMS.get(policy_format, policy_format), unresolved)
        return command(*arguments, policies=policies, **given)

    run = unresolved_option(run)
    return click.option(
        "--policy-format",
        type=Choice((*FORMATS, *SYNONYMS)),
        default="auto",
        show_default=True,
        help="The format of a POLICY that is a cloud's export. auto: detect it.",
    )(run)
