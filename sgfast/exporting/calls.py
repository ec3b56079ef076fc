"""API calls in the order in which they are made, as JSON and as a script of a provider's command line (SPEC 13.4)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sgfast.errors import ExportError
from sgfast.exporting.delta import PolicyDelta, summary
from sgfast.json_types import Absent, Answer
from sgfast.policy.model import Instance, Network, Policy, Rule
from sgfast.policy.yaml_nodes import shown_origin

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Call:
    """One call. In its texts ``${NAME}`` is a variable that an earlier call gave."""

    about: str
    #: The JSON object of it: ``JsonAction`` or ``JsonRequest``. Empty: only a script has it.
    request: Mapping[str, Any]
    #: The same for the command line. Empty: the lines of an earlier call do it.
    lines: Sequence[str]


Gives = Annotated[
    dict[str, str] | Absent,
    "The variables that the answer sets, and where their values are in it, as JMESPath.",
]


class JsonAction(Answer):
    """A call of EC2's API."""

    about: str
    action: Annotated[str, "Such as CreateSecurityGroup."]
    parameters: dict[str, Any]
    region: str | Absent
    gives: Gives


class JsonRequest(Answer):
    """A call of OpenStack's or Open Telekom Cloud's API."""

    about: str
    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: Annotated[str, "Below the endpoint of the network service."]
    body: dict[str, Any] | Absent
    for_each: Annotated[
        str | Absent, "A variable that holds a list: the call is made for each of its values, as ${each}."
    ]
    gives: Gives


class JsonCalls(Answer, published="export"):
    about: Annotated[str, "What it was made from, by which version, and what it does."]
    target: str
    needs: Annotated[dict[str, str], "The variables that the user has to set, and what each of them is."]
    calls: Annotated[
        list[JsonAction | JsonRequest],
        "In order. In texts ${NAME} is a variable; a text that is only a variable may stand for a list.",
    ]


@dataclass(frozen=True, slots=True)
class Calls:
    delta: PolicyDelta
    target: str
    calls: Sequence[Call]
    #: Variables whose values the user has to give, and what they are.
    needs: Mapping[str, str]

    def document(self, version: str) -> dict[str, Any]:
        calls = [call.request for call in self.calls if call.request]
        return JsonCalls.of(self, about=" ".join(head(self.delta, self.target, version)), calls=calls)

    def script(self, version: str, functions: str) -> str:
        lines = ["#!/bin/sh", *map(_comment, head(self.delta, self.target, version)), "set -eu", ""]
        lines += [f': "${{{name}:?must be {what}}}"' for name, what in self.needs.items()]
        lines += [functions.strip()]
        for call in self.calls:
            if call.lines:
                lines += ["", _comment(call.about), *call.lines]
        return "\n".join(lines) + "\n"


def only_in_script(about: str, *lines: str) -> Call:
    """Make lines that only the script has, beside the calls."""
    return Call(about, {}, lines)


def head(found: PolicyDelta, target: str, version: str) -> list[str]:
    """Lines for the beginning of a text: its origin, its target and a summary."""
    made = f"Made by sgfast {version} from {shown_origin(found.new.origin)}"
    since = "" if found.old is None else f", since {shown_origin(found.old.origin)}"
    return [made + since, f"for {target}: {summary(found)}.", *found.new.warnings]


class Variables:
    """Names of variables, each for one thing."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def name(self, kind: str, thing: str) -> str:
        if (kind, thing) not in self._names:
            plain = name = re.sub(r"\W", "_", f"{kind}_{thing}", flags=re.ASCII)
            number = 1
            while name in self._taken:
                number += 1
                name = f"{plain}_{number}"
            self._taken.add(name)
            self._names[kind, thing] = name
        return self._names[kind, thing]


def words(*texts: str) -> str:
    """Words of a shell's command. Variables get their values."""
    return " ".join(_word(text) for text in texts)


def _comment(text: str) -> str:
    # A policy that a program made may have names with line breaks.
    return f"# {' '.join(text.splitlines())}"


def _word(text: str) -> str:
    # Every other part is the name of a variable.
    parts = _VARIABLE.split(text)
    quoted = [f'"${part}"' if n % 2 else shlex.quote(part) for n, part in enumerate(parts) if part]
    return "".join(quoted) or "''"


def single_address(instance: Instance) -> Network | None:
    """An address by which the instance can be found, if its addresses are not all CIDRs."""
    return next((each for each in instance.addresses if each.prefixlen == each.max_prefixlen), None)


def first_id(pattern: re.Pattern[str], *texts: str) -> str:
    """The first of the texts that is an id of the provider; empty if none is."""
    return next(filter(pattern.fullmatch, texts), "")


def id_of_rule(pattern: re.Pattern[str], rule: Rule) -> str:
    """The id of the provider's rule that this rule is, or is a part of; empty if there is none."""
    return first_id(pattern, rule.id.partition("/")[0])


def refuse_several_regions(policy: Policy, target: str) -> None:
    if len(regions := {vpc.region for vpc in policy.vpcs}) > 1:
        message = f"the VPCs are in {len(regions)} regions; {target} is told about one region at a time"
        raise ExportError(shown_origin(policy.origin), message)


def plain_text(text: str) -> str:
    """A user's text, in which nothing is a variable."""
    return text.replace("${", "$ {")
