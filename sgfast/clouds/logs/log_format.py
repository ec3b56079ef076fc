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
    #: The function that yields arrays of RECORD_DTYPE. Functions are named with their modules below ``sgfast.clouds``,
    #: such as ``aws.flow_log:read``.
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
    #: The function that takes a file's path and first bytes, and returns the Unix time in ns at which records begin, or
    #: None. Without it, the first bytes are read as records.
    start_finder: str = ""
    #: The function that takes an open file, and returns whether it is a flow log. Without it, the first bytes show it.
    file_check: str = ""
    #: Whether it holds no flows. Such a log is left out of a folder of flow logs.
    has_no_flows: bool = False

    def load_reader(self) -> Callable[[Any], Iterator[NDArray[Any]]]:
        """Return the function that reads a ``Log``."""
        reader: Callable[[Any], Iterator[NDArray[Any]]] = load_function(self.reader)
        return reader


def load_function(place: str) -> Any:
    """Return a function that a format names. Its module is imported only here."""
    module, _, function = place.partition(":")
    return getattr(import_module(f"sgfast.clouds.{module}"), function)
