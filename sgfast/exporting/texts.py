"""Exports as texts, whatever the target."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from sgfast.errors import ArgumentError, PolicyError
from sgfast.exporting import aws, nftables, openstack, terraform
from sgfast.exporting.connections import commands
from sgfast.exporting.terraform import Provider
from sgfast.policy.document import PolicySource, load
from sgfast.policy.lookup import find, similar
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import read_document, show, shown_origin
from sgfast.version import __version__

Target = Literal["terraform", "aws", "openstack", "otc", "nftables"]


def export(
    policy: PolicySource,
    to: Target,
    *,
    since: PolicySource | None = None,
    form: Literal["script", "json"] = "script",
    provider: Provider | None = None,
    instance: str | None = None,
    interfaces: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
    connections: str | os.PathLike[str] | None = None,
) -> str:
    """What a target has to be told so that the policy holds there, as a text (SPEC 13). Nothing is run.

    ``to``: ``terraform`` (a configuration), ``aws``, ``openstack`` or ``otc`` (a script), ``nftables`` (a file for
    ``nft -f``).
    ``since``: what is there already; only what differs is written. None: nothing but VPCs and instances.
    ``form``: ``json``: the calls of the cloud's API in place of a script.
    ``provider``: of ``terraform``, ``aws``, ``openstack`` or ``opentelekomcloud``; None: that of the policy's profile.
    ``instance``, ``interfaces``: of ``nftables``, the instance that the machine itself is; or for a host, the device
    that each instance is behind, ``{"web-1": "tap0"}``.
    ``connections``: of ``nftables`` with ``since``, the path of what ``conntrack -L -o extended`` lists: write what
    becomes of these connections.

    Raises ExportError, whose ``problems`` list all that the target cannot have; PolicyError; ArgumentError for options
    that do not go together.
    """
    if to not in get_args(Target):
        raise ArgumentError(f"to must be one of {', '.join(get_args(Target))}, not {to!r:.80}")
    if form not in ("script", "json"):
        raise ArgumentError(f"form must be script or json, not {form!r:.80}")
    if form == "json" and to in ("terraform", "nftables"):
        raise ArgumentError(f"form json is for the calls of an API; {to} has none")
    if provider is not None and (to != "terraform" or provider not in get_args(Provider)):
        raise ArgumentError(f"provider is for terraform, and one of {', '.join(get_args(Provider))}")
    new, old = load(policy), None if since is None else load(since)
    if to == "nftables":
        return _filter(old, new, instance, interfaces, connections)
    if instance is not None or interfaces is not None or connections is not None:
        raise ArgumentError("instance, interfaces and connections are for nftables")
    if to == "terraform":
        return terraform.export(old, new, provider or terraform.PROVIDERS[new.settings.profile], __version__)
    if to == "aws":
        calls, functions = aws.export(old, new), aws.FUNCTIONS
    else:
        calls, functions = openstack.export(old, new, to, form), openstack.FUNCTIONS
    if form == "json":
        return json.dumps(calls.document(__version__), indent=2) + "\n"
    return calls.script(__version__, functions)


def _filter(
    old: Policy | None, new: Policy, instance: str | None,
    interfaces: Mapping[str, str] | Iterable[tuple[str, str]] | None, connections: str | os.PathLike[str] | None,
) -> str:  # fmt: skip
    if (instance is None) == (interfaces is None):
        raise ArgumentError("nftables needs instance, or interfaces with the device of each instance")

    def named(word: str) -> str:
        for policy in (new, old):
            if policy is not None and (name := find(policy, "instance", word)) is not None:
                return name
        raise PolicyError(
            f"{shown_origin(new.origin)}: there is no instance {show(word)}{similar(new, 'instance', word)}"
        )

    given: dict[str, str | None] = {}
    if instance is not None:
        given[named(instance)] = None
    for word, device in interfaces.items() if isinstance(interfaces, Mapping) else interfaces or ():
        if given.setdefault(name := named(word), device) != device:
            raise ArgumentError(f"instance {name!r} is behind one interface, not several")
    if connections is not None and old is None:
        raise ArgumentError("connections needs since: what becomes of connections depends on what changed")
    if old is None:
        return nftables.ruleset(new, given, __version__)
    if connections is None:
        return nftables.update(old, new, given, __version__)
    data, origin = read_document(connections)
    return commands(old, new, given, data.decode(errors="replace").splitlines(), shown_origin(origin), __version__)
