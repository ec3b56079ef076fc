"""A format of flow logs: how it is recognised, who reads it, and what its records lack."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray


class UnloggedService(NamedTuple):
    """A service with which a cloud logs no traffic.

    ``protocol``: the IP protocol number.
    ``port``: the service's port.
    ``address``: the service's address; None: it has an address of the VPC, or it may be any.
    """

    protocol: int
    port: int
    address: IPv4Address | None


@dataclass(frozen=True)
class LogFormat:
    """A format of flow logs. Without ``reader`` it is only recognised."""

    name: str
    #: The function that yields arrays of RECORD_DTYPE: its module below ``sgfast.clouds``, and its name. So are the
    #: other functions named.
    reader: str = ""
    #: Sets of patterns for files of JSON. If all patterns of one set are in the first bytes, the file has this format.
    json_patterns: tuple[tuple[bytes, ...], ...] = ()
    #: A pattern in the first bytes of a text.
    text_pattern: bytes = b""
    #: Fields by AWS's names that no record of the format has: a verb phrase about its records, for messages.
    lacks: Mapping[str, str] = field(default_factory=dict)
    #: Whether records show that the other end answered.
    shows_answers: bool = True
    #: Whether it has only TCP, UDP and ICMP.
    lacks_protocols: bool = False
    #: Whether each record should name its interface.
    names_interfaces: bool = False
    #: The services that are never logged, and a sentence about them.
    unlogged_services: tuple[UnloggedService, ...] = ()
    unlogged_words: str = ""
    #: The function that returns the Unix time in ns at which a file's records begin, or None, by its path and its first
    #: bytes. Without one, the first bytes are records.
    begin: str = ""
    #: The function that says by an open file whether it is a log, where the first bytes do not show this.
    is_log: str = ""
    #: Whether it is a log of other things, which is left out where it stands beside flow logs.
    is_of_others: bool = False

    def load_reader(self) -> Callable[[Any], Iterator[NDArray[Any]]]:
        """Return the function that reads a ``Log``."""
        reader: Callable[[Any], Iterator[NDArray[Any]]] = load_function(self.reader)
        return reader


def load_function(place: str) -> Any:
    """Return the function at a place such as ``aws.flow_log:read``. Its module is imported only here."""
    module, _, function = place.partition(":")
    return getattr(import_module(f"sgfast.clouds.{module}"), function)
