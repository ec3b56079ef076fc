"""Parse the text of ``--filter`` into a program that ``selection.Filter`` runs for every packet.

The language is the part of tcpdump's language (pcap-filter) for IP packets:

    expression  term { ("and" | "or") term }        evaluated from left to right with equal precedence
    term        { "not" } ( "(" expression ")" | test )
    test        [ protocol ] [ way ] [ kind ] ( value | "(" values ")" )  |  protocol
    way         "src" | "dst" | "src or dst" | "src and dst"
    kind        "host" | "net" | "port" | "portrange" | "proto"

A bare value after "and", "or" or "not" takes over the qualifiers of the last value: ``tcp port 80 or 443``.
The program is in postfix order: a test pushes a result, "and" and "or" combine two results, "not" inverts the last.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Literal, NoReturn

from sgfast.base.errors import ReadingError
from sgfast.base.names import printable

#: The limit is enough for hundreds of addresses. Every packet is compared with each of them.
MOST_CHARACTERS = 20_000
#: Maximum nesting depth of parentheses. Each level keeps a result on the stack, which is a word of 64 bits.
MOST_DEPTH = 32

#: Protocol number and IP version by keyword. Version 0 means both.
_PROTOCOLS = {
    "tcp": (6, 0), "udp": (17, 0), "sctp": (132, 0), "icmp": (1, 4), "icmp6": (58, 6), "icmpv6": (58, 6),
    "gre": (47, 0), "esp": (50, 0), "ah": (51, 0),
}  # fmt: skip
_FAMILIES = {"ip": 4, "ip6": 6}
_PORT_PROTOCOLS = ("tcp", "udp", "sctp")
_PORT_KINDS = ("port", "portrange")
_FAMILY_KINDS = ("host", "net", "proto")
_KINDS = ("host", "net", *_PORT_KINDS, "proto")
_WAYS = ("src", "dst")
_SYNONYMS = {"&&": "and", "||": "or", "!": "not"}
_JOINS = ("and", "or")
_KEYWORDS = {*_PROTOCOLS, *_FAMILIES, *_KINDS, *_WAYS, *_JOINS, "not", "(", ")"}

_TOKEN = re.compile(r"\s+|&&|\|\||[()!]|\\?[A-Za-z0-9_.:/-]+", re.ASCII)
_EXPECTED_TEST = f"one of {', '.join((*_KINDS, *_WAYS, *_FAMILIES, *_PROTOCOLS))}"


@dataclass(frozen=True, slots=True)
class FilterStep:
    """One instruction of a filter program."""

    operation: Literal["and", "or", "not", "family", "protocol", "address", "ports"]
    #: The end of the packet to which an address or ports apply.
    way: Literal["either", "src", "dst", "both"] = "either"
    #: Matches only this IP version, 4 or 6; 0: both.
    family: int = 0
    #: The protocol number. For ports, 0 means TCP, UDP and SCTP.
    protocol: int = 0
    network: IPv4Network | IPv6Network | None = None
    #: Port range, inclusive.
    first: int = 0
    last: int = 0


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    #: 1-based.
    column: int


@dataclass(frozen=True, slots=True)
class _Qualifiers:
    """The words before a value."""

    protocol: str = ""
    way: Literal["either", "src", "dst", "both"] = "either"
    kind: str = "host"


def parse_filter(text: str) -> list[FilterStep]:
    """Return the program of an expression. ReadingError names the column and the words expected there."""
    return _Parser(text).program()


class _Parser:
    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise ReadingError(f"--filter: has {len(text)} characters; there may be {MOST_CHARACTERS}")
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._steps: list[FilterStep] = []
        #: The qualifiers that a bare value takes over.
        self._last_qualifiers: _Qualifiers | None = None

    def program(self) -> list[FilterStep]:
        self._expression(None)
        if self._peek():
            self._refuse('"and", "or" or the end')
        return self._steps

    # Tokens

    def _peek(self, ahead: int = 0) -> str:
        """Return the next token, or the one ``ahead`` positions after it; "" at the end."""
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)].text

    def _take(self) -> str:
        word = self._peek()
        self._at += 1
        return word

    def _refuse(self, expected: str, hint: str = "", at: int | None = None) -> NoReturn:
        """Raise ReadingError about the token with index ``at``, by default the next token."""
        token = self._tokens[min(self._at if at is None else at, len(self._tokens) - 1)]
        shown_token = f'"{printable(token.text[:40])}"' if token.text else "the end"
        raise ReadingError(f"--filter: column {token.column}: expected {expected}, not {shown_token}{hint}")

    # Grammar. `within`: the qualifiers in front of the enclosing parentheses, which then contain only values.

    def _expression(self, within: _Qualifiers | None) -> None:
        self._term(within)
        while self._peek() in _JOINS:
            join: Literal["and", "or"] = "and" if self._take() == "and" else "or"
            self._term(within)
            self._steps.append(FilterStep(join))

    def _term(self, within: _Qualifiers | None) -> None:
        negated = False
        while self._peek() == "not":
            self._at += 1
            negated = not negated
        if self._peek() == "(":
            self._parenthesised(within)
        elif within is not None:
            self._value(within)
        else:
            self._test()
        if negated:
            self._steps.append(FilterStep("not"))

    def _parenthesised(self, within: _Qualifiers | None) -> None:
        if self._depth == MOST_DEPTH:
            self._refuse(f"at most {MOST_DEPTH} nested parentheses")
        self._depth += 1
        self._at += 1
        self._expression(within)
        if self._peek() != ")":
            self._refuse('"and", "or" or ")"')
        self._at += 1
        self._depth -= 1

    def _test(self) -> None:
        word = self._peek()
        if word and word not in _KEYWORDS:
            if self._last_qualifiers is None or not _is_value(word):
                self._refuse(_EXPECTED_TEST)
            self._value(self._last_qualifiers)
            return
        protocol = self._take() if word in _PROTOCOLS or word in _FAMILIES else ""
        second = self._at
        way = self._way()
        kind = self._take() if self._peek() in _KINDS else ""
        if not way and not kind and (self._peek() in _KEYWORDS or not self._peek()):
            if not protocol:
                self._refuse(_EXPECTED_TEST)
            if self._peek() == "(":
                self._refuse(f'"and" or "or" after {protocol}')
            self._last_qualifiers = None
            self._steps.append(_protocol_step(protocol))
            return
        qualifiers = _Qualifiers(protocol, way or "either", kind or "host")
        self._check_combination(qualifiers, second)
        self._last_qualifiers = qualifiers
        if self._peek() == "(":
            self._parenthesised(qualifiers)
        else:
            self._value(qualifiers)

    def _way(self) -> Literal["either", "src", "dst", "both", ""]:
        if self._peek() not in _WAYS:
            return ""
        way = self._take()
        if self._peek() in _JOINS and {way, self._peek(1)} == set(_WAYS):
            join = self._take()
            self._at += 1
            return "either" if join == "or" else "both"
        return "src" if way == "src" else "dst"

    def _check_combination(self, qualifiers: _Qualifiers, second: int) -> None:
        """Refuse words that cannot be combined; ``second``: the index of the token after the protocol."""
        protocol, kind = qualifiers.protocol, qualifiers.kind
        if kind == "proto" and qualifiers.way != "either":
            self._refuse("host, net, port or portrange", ": a protocol has no direction", self._at - 1)
        if protocol in _FAMILIES and kind not in _FAMILY_KINDS:
            self._refuse(f'"and" after {protocol}', f": it goes with {', '.join(_FAMILY_KINDS)}", second)
        if protocol in _PORT_PROTOCOLS and kind not in _PORT_KINDS:
            self._refuse(f'"and" after {protocol}', f": it goes with {', '.join(_PORT_KINDS)}", second)
        if protocol and protocol not in (*_FAMILIES, *_PORT_PROTOCOLS):
            self._refuse(f'"and" after {protocol}', ": it stands alone", second)

    def _value(self, qualifiers: _Qualifiers) -> None:
        kind = qualifiers.kind
        if not self._peek() or self._peek() in _KEYWORDS - _PROTOCOLS.keys():
            self._refuse(_EXPECTED_VALUES[kind])
        family = _FAMILIES.get(qualifiers.protocol, 0)
        if kind == "proto":
            step = self._protocol(family)
        elif kind in ("host", "net"):
            step = self._address(kind, family)
        else:
            first, last = self._ports(kind)
            protocol = _PROTOCOLS[qualifiers.protocol][0] if qualifiers.protocol else 0
            step = FilterStep("ports", protocol=protocol, first=first, last=last)
        self._at += 1
        self._steps.append(replace(step, way=qualifiers.way))

    # Values

    def _protocol(self, family: int) -> FilterStep:
        word = self._peek().removeprefix("\\")
        number = _PROTOCOLS[word][0] if word in _PROTOCOLS else _number(word, 255)
        if number is None:
            self._refuse(_EXPECTED_VALUES["proto"])
        return FilterStep("protocol", family=family, protocol=number)

    def _address(self, kind: str, family: int) -> FilterStep:
        word = self._peek()
        try:
            written = _with_all_octets(word) if kind == "net" else word
            address = ip_address(written.partition("/")[0] if kind == "net" else written)
            network = ip_network(written, strict=False)
        except ValueError:
            if kind == "host" and "/" in word:
                self._refuse("an address", f": write net {printable(word[:40])}")
            self._refuse(_EXPECTED_VALUES[kind], "" if _is_value(word) else "; names are not looked up")
        if network.network_address != address:
            self._refuse("a network", f": it has host bits set; write {network}")
        if family and network.version != family:
            self._refuse(f"an IPv{family} {'address' if kind == 'host' else 'network'}")
        return FilterStep("address", family=network.version, network=network)

    def _ports(self, kind: str) -> tuple[int, int]:
        word = self._peek()
        ends = word.split("-") if kind == "portrange" else [word]
        ports = [_number(end, 65535) for end in ends]
        first, last = ports[0], ports[-1]
        if len(ports) > 2 or first is None or last is None:
            if kind == "port" and "-" in word:
                self._refuse("a port", f": write portrange {printable(word[:40])}")
            self._refuse(_EXPECTED_VALUES[kind], "" if word[:1].isdigit() else "; names are not looked up")
        if first > last:
            self._refuse("a range that does not end before it begins")
        return first, last


_EXPECTED_VALUES = {
    "host": "an IPv4 or IPv6 address",
    "net": "a network like 10.0.0.0/8, 192.168 or 2001:db8::/32",
    "port": "a port, 0 to 65535",
    "portrange": "ports like 8000-8080, 0 to 65535",
    "proto": f"a protocol, 0 to 255 or one of {', '.join(_PROTOCOLS)}",
}


def _tokens(text: str) -> list[_Token]:
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ReadingError(
                f'--filter: column {at + 1}: "{printable(text[at])}" is not valid here: tests are words '
                f"({', '.join(_KINDS)}, ...), joined with and, or, not, ( and )"
            )
        word = match[0]
        if not word.isspace():
            tokens.append(_Token(_SYNONYMS.get(word, word), at + 1))
        at = match.end()
    return [*tokens, _Token("", len(text) + 1)]


def _is_value(word: str) -> bool:
    """Return whether the token could be an address or a port rather than a word."""
    return word[:1].isdigit() or ":" in word


def _number(word: str, maximum: int) -> int | None:
    return int(word) if word.isdigit() and len(word) <= 5 and int(word) <= maximum else None


def _with_all_octets(network: str) -> str:
    """Complete an IPv4 network whose last octets are left out: 10 becomes 10.0.0.0/8."""
    address, slash, prefix = network.partition("/")
    octets = address.split(".")
    if ":" in address or len(octets) > 3:
        return network
    zeros = ["0"] * (4 - len(octets))
    return f"{'.'.join([*octets, *zeros])}/{prefix if slash else 8 * len(octets)}"


def _protocol_step(word: str) -> FilterStep:
    if word in _FAMILIES:
        return FilterStep("family", family=_FAMILIES[word])
    number, family = _PROTOCOLS[word]
    return FilterStep("protocol", family=family, protocol=number)
