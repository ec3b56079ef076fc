"""The texts of exports to all targets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from sgfast.base.errors import ArgumentError, ArgumentTypeError, PolicyError
from sgfast.clouds.providers import EXPORTS
from sgfast.policy.lookup import find, similar
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import read_document, show, shown_origin
from sgfast.version import __version__

if TYPE_CHECKING:
    from sgfast.clouds.exporting.calls import Calls
    from sgfast.clouds.providers import TargetName
    from sgfast.clouds.terraform.provider import Provider


def cloud_text(
    old: Policy | None, new: Policy, to: TargetName, form: Literal["script", "json"], provider: Provider | None
) -> str:
    """Write the configuration, the script or the calls for a cloud."""
    if to == "terraform":
        from sgfast.clouds.terraform import export as terraform
        from sgfast.clouds.terraform.provider import PROFILE_OF_PROVIDER

        if provider not in (None, *PROFILE_OF_PROVIDER):
            raise ArgumentError(f"provider must be one of {', '.join(PROFILE_OF_PROVIDER)}, not {provider!r:.80}")
        return terraform.export(old, new, provider or terraform.PROVIDERS[new.settings.profile], __version__)
    target = import_module(f"sgfast.clouds.{EXPORTS[to]}")
    calls: Calls = target.export(old, new, form)
    if form == "json":
        return json.dumps(calls.document(__version__), indent=2) + "\n"
    return calls.script(__version__, target.FUNCTIONS)


def devices_of(
    old: Policy | None, new: Policy, pairs: Iterable[tuple[str, str | None]]
) -> dict[str, str | None]:
    """Return the host's network device of each instance, by the instance's name. None: the machine itself.

    ``pairs``: a name, id or label of an instance, and its device.
    """
    devices: dict[str, str | None] = {}
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
        name = next((name_text for name_text in names if name_text is not None), None)
        if name is None:
            origin = shown_origin(new.origin)
            raise PolicyError(f"{origin}: there is no instance {show(word)}{similar(new, 'instance', word)}")
        if devices.setdefault(name, device) != device:
            raise ArgumentError(f"instance {name!r} is behind one interface, not several")
    return devices


def filter_text(old: Policy | None, new: Policy, devices: Mapping[str, str | None], *, is_change: bool) -> str:
    """Return a file for ``nft -f`` with the filter of ``new``. ``is_change``: only with the changes since ``old``."""
    from sgfast.clouds.linux import nftables

    if is_change and old is not None:
        return nftables.update(old, new, devices, __version__)
    here = {name: device for name, device in devices.items() if name in new.instance_by_name}
    return nftables.ruleset(new, here or devices, __version__)


def connections_text(
    old: Policy, new: Policy, devices: Mapping[str, str | None], listed: str | os.PathLike[str]
) -> str:
    """Write the commands for the connections that ``conntrack -L -o extended`` lists in a file."""
    from sgfast.clouds.exporting.connections import commands

    data, origin = read_document(listed)
    lines = data.decode(errors="replace").splitlines()
    return commands(old, new, devices, lines, shown_origin(origin), __version__)
