"""A provider of rules or logs: a cloud, a language or a system, by what sgfast has for it.

Each folder of a provider has a module ``provider`` with its value. It names modules, and imports none of them, because
every command knows all providers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from sgfast.clouds.importing.formats import Format
from sgfast.clouds.logs.log_format import LogFormat
from sgfast.clouds.logs.log_paths import LogPaths

if TYPE_CHECKING:
    from sgfast.clouds.importing.sources import Account
    from sgfast.policy.profile_data import ProfileName


class LiveReader(NamedTuple):
    """A function that reads an account through a provider's API."""

    #: The module below ``sgfast.clouds``.
    module: str
    #: The function's name. It takes the values of the options and a function that shows progress.
    function: str
    #: The options of ``sgfast import --live`` that choose the account.
    options: tuple[str, ...]

    def load(self) -> Callable[..., Account]:
        """Return the function. Its module is imported only here."""
        function: Callable[..., Account] = getattr(import_module(f"sgfast.clouds.{self.module}"), self.function)
        return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """The parts of sgfast that are for one provider. Modules are below ``sgfast.clouds``."""

    #: The profile that says what its rules mean.
    profile: ProfileName | None = None
    #: Its exports, which become policies.
    format: Format | None = None
    #: The way to read an account through the provider's API.
    live: LiveReader | None = None
    #: The modules of exports, by the word of ``--to``. Each has ``export``, which makes calls, and ``FUNCTIONS``.
    exports: Mapping[str, str] = field(default_factory=dict)
    log_formats: tuple[LogFormat, ...] = ()
    #: The names of its logs and of their folders, if they have times.
    log_paths: LogPaths | None = None
