"""Exports as texts, whatever the target."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, get_args

from sgfast.errors import ArgumentError, ArgumentTypeError, PolicyError
from sgfast.loading import PolicySource, load
from sgfast.policy.lookup import find, similar
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import read_document, show, shown_origin
from sgfast.version import __version__

if TYPE_CHECKING:
    from sgfast.exporting.terraform import Provider

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
    """Write what a target needs for the policy to hold there, as a text (SPEC 13). Nothing is run.

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
    that do not go together; ArgumentTypeError for one of another type.
    """
    if to not in get_args(Target):
        raise ArgumentError(f"to must be one of {', '.join(get_args(Target))}, not {to!r:.80}")
    if form not in ("script", "json"):
        raise ArgumentError(f"form must be script or json, not {form!r:.80}")
    if form == "json" and to in ("terraform", "nftables"):
        raise ArgumentError(f"form json is for the calls of an API; {to} has none")
    if provider is not None and to != "terraform":
        raise ArgumentError("provider is for terraform")
    new, old = load(policy), None if since is None else load(since)
    if to != "nftables":
        if instance is not None or interfaces or connections is not None:
            raise ArgumentError("instance, interfaces and connections are for nftables")
        return cloud_text(old, new, to, form, provider)
    if (instance is None) == (not interfaces):
        raise ArgumentError("nftables needs instance, or interfaces with the device of each instance")
    pairs: Iterable[tuple[str, str | None]]
    if instance is not None:
        pairs = [(instance, None)]
    else:
        pairs = interfaces.items() if isinstance(interfaces, Mapping) else interfaces or ()
    devices = devices_of(old, new, pairs)
    if connections is None:
        return filter_text(old, new, devices, is_change=old is not None)
    if old is None:
        raise ArgumentError("connections needs since: what becomes of connections depends on what changed")
    if not isinstance(connections, str | os.PathLike):
        raise ArgumentTypeError(f"connections must be the path of a list, not {connections!r:.80}")
    return connections_text(old, new, devices, connections)


def cloud_text(
    old: Policy | None, new: Policy, to: Target, form: Literal["script", "json"], provider: Provider | None
) -> str:
    """Write the configuration, the script or the calls for a cloud."""
    from sgfast.exporting import aws, openstack

    if to == "terraform":
        from sgfast.exporting import terraform

        known = get_args(terraform.Provider)
        if provider not in (None, *known):
            raise ArgumentError(f"provider must be one of {', '.join(known)}, not {provider!r:.80}")
        return terraform.export(old, new, provider or terraform.PROVIDERS[new.settings.profile], __version__)
    if to == "aws":
        calls, functions = aws.export(old, new), aws.FUNCTIONS
    else:
        calls = openstack.export(old, new, "otc" if to == "otc" else "openstack", form)
        functions = openstack.FUNCTIONS
    if form == "json":
        return json.dumps(calls.document(__version__), indent=2) + "\n"
    return calls.script(__version__, functions)


def devices_of(
    old: Policy | None, new: Policy, pairs: Iterable[tuple[str, str | None]]
) -> dict[str, str | None]:
    """The devices that instances are behind, by the instances' names in the policies, from pairs of any word for an
    instance and its device. None: the machine itself is the instance.
    """
    found: dict[str, str | None] = {}
    try:
        pairs = [(word, device) for word, device in pairs]
    except (TypeError, ValueError):
        raise ArgumentTypeError("interfaces must be a mapping, such as {'web-1': 'tap0'}, or pairs") from None
    for word, device in pairs:
        if not isinstance(word, str):
            raise ArgumentTypeError(f"an instance must be a text, not {word!r:.80}")
        if not isinstance(device, str | None):
            raise ArgumentTypeError(f"the interface of instance {show(word)} must be a text, not {device!r:.80}")
        names = (find(policy, "instance", word) for policy in (new, old) if policy is not None)
        name = next((each for each in names if each is not None), None)
        if name is None:
            origin = shown_origin(new.origin)
            raise PolicyError(f"{origin}: there is no instance {show(word)}{similar(new, 'instance', word)}")
        if found.setdefault(name, device) != device:
            raise ArgumentError(f"instance {name!r} is behind one interface, not several")
    return found


def filter_text(old: Policy | None, new: Policy, devices: Mapping[str, str | None], *, is_change: bool) -> str:
    """A file for ``nft -f``: the whole filter of ``new``, or with ``is_change`` what turns that of ``old`` into it."""
    from sgfast.exporting import nftables

    if is_change and old is not None:
        return nftables.update(old, new, devices, __version__)
    here = {name: device for name, device in devices.items() if name in new.instance_by_name}
    return nftables.ruleset(new, here or devices, __version__)


def connections_text(
    old: Policy, new: Policy, devices: Mapping[str, str | None], listed: str | os.PathLike[str]
) -> str:
    """Write the commands for the connections that ``conntrack -L -o extended`` lists in a file."""
    from sgfast.exporting.connections import commands

    data, origin = read_document(listed)
    lines = data.decode(errors="replace").splitlines()
    return commands(old, new, devices, lines, shown_origin(origin), __version__)
