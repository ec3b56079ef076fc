"""A provider of rules or logs: a cloud, a language or a system, by what sgfast has for it.

Each folder of a provider has a module ``provider`` with its value. It names modules, and imports none of them, because
every command knows all providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sgfast.clouds.importing.formats import Format
from sgfast.clouds.logs.log_format import LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The parts of sgfast that are for one provider. Modules are below ``sgfast.clouds``."""

    #: Its exports, which become policies.
    format: Format | None = None
    #: The module whose ``read_account`` reads an account through the provider's API.
    live: str = ""
    #: The modules of exports, by the word of ``--to``. Each has ``export``, which makes calls, and ``FUNCTIONS``.
    exports: Mapping[str, str] = field(default_factory=dict)
    log_formats: tuple[LogFormat, ...] = ()
