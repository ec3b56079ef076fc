"""Calls of a provider's API in order, as JSON and as a script of the provider's command line (SPEC 13.4)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from sgfast.base.errors import ExportError
from sgfast.base.json_types import Absent, Answer
from sgfast.clouds.exporting.delta import PolicyDelta, summary
from sgfast.policy.model import Instance, Network, Policy, Rule
from sgfast.policy.yaml_nodes import shown_origin

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an API. ``${NAME}`` in its texts is a variable that an earlier call has set."""

    about: str
    #: The call as a JSON object: ``JsonAction`` or ``JsonRequest``. Empty: only the script has it.
    request: Mapping[str, Any]
    #: The call as lines of the script. Empty: the lines of an earlier call do the same.
    lines: Sequence[str]


Gives = Annotated[
    dict[str, str] | Absent,
    "The variables that the answer sets. Each has the JMESPath of its value in the answer.",
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
        str | Absent, "A variable that contains a list. The call is made once for each of its values, as ${each}."
    ]
    gives: Gives


class JsonCalls(Answer, published="export"):
    about: Annotated[str, "The version of sgfast, the policies that the calls were made from, and a summary of them."]
    target: str
    needs: Annotated[dict[str, str], "The variables that the user has to set, each with its meaning."]
    calls: Annotated[
        list[JsonAction | JsonRequest],
        "The calls, in order. In texts ${NAME} is a variable. A text that is only a variable may have a list as value.",
    ]


@dataclass(frozen=True, slots=True)
class Calls:
    delta: PolicyDelta
    target: str
    calls: Sequence[Call]
    #: The variables that the user has to set, each with its meaning.
    needs: Mapping[str, str]

    def document(self, version: str) -> dict[str, Any]:
        calls = [call.request for call in self.calls if call.request]
        return JsonCalls.of(self, about=" ".join(head(self.delta, self.target, version)), calls=calls)

    def script(self, version: str, functions: str) -> str:
        lines = ["#!/bin/sh", *map(_comment, head(self.delta, self.target, version)), "set -eu", ""]
        lines += [f': "${{{name}:?must be {meaning}}}"' for name, meaning in self.needs.items()]
        lines += [functions.strip()]
        for call in self.calls:
            if call.lines:
                lines += ["", _comment(call.about), *call.lines]
        return "\n".join(lines) + "\n"


def only_in_script(about: str, *lines: str) -> Call:
    """Make a call that is only in the script and not in JSON."""
    return Call(about, {}, lines)


def head(delta: PolicyDelta, target: str, version: str) -> list[str]:
    """Return the first lines of an exported text: its origin, its target and a summary."""
    first_words = f"Made by sgfast {version} from {shown_origin(delta.new.origin)}"
    since_old = "" if delta.old is None else f", since {shown_origin(delta.old.origin)}"
    return [first_words + since_old, f"for {target}: {summary(delta)}.", *delta.new.warnings]


class Variables:
    """Unique names of variables for the objects of a policy."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._taken_names: set[str] = set()

    def name(self, kind: str, object_name: str) -> str:
        """Return the variable for the object of this kind that has the name ``object_name``."""
        if (kind, object_name) not in self._names:
            plain = name = re.sub(r"\W", "_", f"{kind}_{object_name}", flags=re.ASCII)
            number = 1
            while name in self._taken_names:
                number += 1
                name = f"{plain}_{number}"
            self._taken_names.add(name)
            self._names[kind, object_name] = name
        return self._names[kind, object_name]


def words(*texts: str) -> str:
    """Quote texts as words of a shell command. The shell replaces variables in them by their values."""
    return " ".join(_word(text) for text in texts)


def _comment(text: str) -> str:
    # Names in a policy that a program made may contain line breaks.
    return f"# {' '.join(text.splitlines())}"


def _word(text: str) -> str:
    # Every second part is the name of a variable.
    parts = _VARIABLE.split(text)
    quoted = [f'"${part}"' if n % 2 else shlex.quote(part) for n, part in enumerate(parts) if part]
    return "".join(quoted) or "''"


def single_address(instance: Instance) -> Network | None:
    """Return the instance's first single address, by which it can be found. None: all its addresses are CIDRs."""
    return next((address for address in instance.addresses if address.prefixlen == address.max_prefixlen), None)


def first_id(pattern: re.Pattern[str], *texts: str) -> str:
    """Return the first text that is an id of the provider, or "" if there is none."""
    return next(filter(pattern.fullmatch, texts), "")


def id_of_rule(pattern: re.Pattern[str], rule: Rule) -> str:
    """Return the id of the provider's rule from which this rule comes, or "" if there is none."""
    return first_id(pattern, rule.id.partition("/")[0])


def refuse_several_regions(policy: Policy, target: str) -> None:
    if len(regions := {vpc.region for vpc in policy.vpcs}) > 1:
        message = f"the VPCs are in {len(regions)} regions; {target} is told about one region at a time"
        raise ExportError(shown_origin(policy.origin), message)


def plain_text(text: str) -> str:
    """Change a user's text so that it contains no variable."""
    return text.replace("${", "$ {")
