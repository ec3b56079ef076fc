"""Load a policy from a file, a text or plain values: a policy document (SPEC 2) or a cloud's export."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.base.errors import ArgumentTypeError
from sgfast.policy.document_reader import DocumentReader, Lines
from sgfast.policy.export_files import Unresolved, refuse_table, refuse_terraform_input
from sgfast.policy.loaded_policy import LoadedPolicy
from sgfast.policy.model import Policy
from sgfast.policy.plain_values import compose_values, path_in
from sgfast.policy.profile_data import ExportFormat
from sgfast.policy.yaml_nodes import compose, garbage_collection_paused, read_document

__all__ = ["CapturePaths", "EndWord", "PolicySource", "Progress", "load", "load_policy", "parse_policy"]

#: The values that a program may pass as a policy (SPEC 14.2).
PolicySource = Policy | str | os.PathLike[str] | Mapping[str, Any] | Sequence[Any]
#: One end of connections: a word that SPEC 12.2 lists, or an address or network as a value.
EndWord = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network
#: A capture, or several, which form one replay in the order given.
CapturePaths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
#: A function that is called repeatedly with the packets and the bytes read so far.
Progress = Callable[[int, int], None]

#: The number of characters at the start of a text in which JSON's first bracket is searched for. A text with more
#: blanks before the bracket is read as YAML, which accepts JSON, too.
_BLANK_CHARACTERS = 1000


def load_policy(
    path: str | os.PathLike[str],
    lines: Lines | None = None,
    *,
    format: ExportFormat = "auto",
    unresolved: Unresolved = "error",
) -> Policy:
    """Load the policy in a file; ``-`` is standard input.

    The file may also be a cloud's export, or a directory of exports that form one policy. ``format``: the name of the
    export's format (SPEC 10.17). ``unresolved``: the treatment of references to groups or lists that no file contains
    (SPEC 2.13). ``lines``: a dictionary that receives the line numbers of a document's items. A PolicyError names file,
    line and field. If there are several errors, it has a line for each, and its ``errors`` has them one by one.
    """
    if format != "auto" or (os.fsdecode(path) != "-" and os.path.isdir(path)):
        from sgfast.clouds.importing.reading import load as load_export

        return load_export([path], format, unresolved).policy()
    data, origin = read_document(path)
    refuse_terraform_input(data, origin)
    refuse_table(data, origin)
    return parse_policy(data, origin, lines, unresolved=unresolved)


def parse_policy(
    text: str | bytes,
    origin: str = "<policy>",
    lines: Lines | None = None,
    *,
    format: ExportFormat = "auto",
    unresolved: Unresolved = "error",
) -> Policy:
    """Parse the text of a document or of a cloud's export.

    ``origin``: the name of the text in messages. The other arguments and the errors are those of ``load_policy``.
    """
    with garbage_collection_paused():
        if format != "auto":
            from sgfast.clouds.importing.reading import import_sources
            from sgfast.clouds.importing.sources import source_of

            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            return import_sources([source_of(data, origin)], format, unresolved=unresolved).policy()
        if text[:_BLANK_CHARACTERS].lstrip()[:1] in (b"{", b"[", "{", "["):
            # A text that looks like JSON is more likely an export than a policy document.
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            exported = _export(data, origin, unresolved)
            if exported is not None:
                return exported
        return _read(compose(text, origin), origin, lines, unresolved)


def load(
    source: PolicySource | None = None,
    *,
    text: str | bytes | None = None,
    format: ExportFormat = "auto",
    unresolved: Unresolved = "error",
) -> Policy:
    """Load a policy from a path, a text or plain values (SPEC 14.2).

    ``source``: the path of a document, of a cloud's export or of a directory of exports, or ``-`` for standard input;
    or plain values, as ``yaml.safe_load`` or a cloud's library returns them. A ``Policy`` is returned unchanged; if a
    program made it, it is checked first.
    ``text``: the text of a document or of an export, in the place of ``source``. It is never taken for a path.
    ``format``: the format of an export, ``otc``, ``neutron``, ``aws``, ``terraform`` or ``cloudformation``; ``auto``
    detects it.
    ``unresolved``: the treatment of groups or lists to which an export refers without containing them. ``error``: raise
    an error that lists them all. ``empty``: treat them as groups or lists without known addresses. A mapping says the
    addresses of some by id, ``{"sg-0abc": "10.0.3.0/24"}``; its key ``*`` has the word for the others.

    Raises PolicyError, which names file, line and field, or only the field of plain values. If there are several
    errors, it has a line for each, and its ``errors`` has them one by one. Raises ArgumentError for an unknown format
    or a text as ``source``, ArgumentTypeError for values of another type.

    For example:

        policy = sgfast.load("pcaps/shop.yaml")
        other = sgfast.load({"version": 1, "security_groups": [{"name": "web", "rules": []}]})
        assert len(policy.instances) == 3 and other.security_groups[0].name == "web"
    """
    if (source is None) == (text is None):
        raise ArgumentTypeError("a policy needs either a source or text=")
    if isinstance(source, Policy):
        if not isinstance(source, LoadedPolicy) or not source._is_checked:
            from sgfast.policy.value_checks import check_made_policy

            check_made_policy(source)
        return source
    lines: Lines = {}
    if text is not None:
        if not isinstance(text, str | bytes):
            raise ArgumentTypeError(f"text must be a str or bytes, not {text!r:.80}")
        policy = parse_policy(text, lines=lines, format=format, unresolved=unresolved)
    elif (path := path_in(source, "give it as text= to sgfast.load")) is not None:
        policy = load_policy(path, lines, format=format, unresolved=unresolved)
    elif isinstance(source, Mapping | list | tuple):
        policy = _from_values(source, format, unresolved)
    else:
        raise ArgumentTypeError(f"a policy must be a path, a mapping, a list or a Policy, not {source!r:.80}")
    if isinstance(policy, LoadedPolicy):
        policy.lines = lines
    return policy


def _from_values(source: Mapping[str, Any] | Sequence[Any], format: ExportFormat, unresolved: Unresolved) -> Policy:
    origin = "<policy>"
    with garbage_collection_paused():
        root = compose_values(source, origin)
        if format != "auto":
            from sgfast.clouds.importing.reading import import_sources
            from sgfast.clouds.importing.sources import plain_source

            return import_sources([plain_source(root, origin)], format, unresolved=unresolved).policy()
        return _read(root, origin, None, unresolved)


def _read(root: Node, origin: str, lines: Lines | None, unresolved: Unresolved) -> Policy:
    """Read the nodes of a policy document or of an export."""
    if type(root) is not ScalarNode and not _has_key(root, "version"):
        exported = _export(root, origin, unresolved)
        if exported is not None:
            return exported
    reader = DocumentReader(root, origin)
    policy = reader.policy()
    if lines is not None:
        lines.update(reader.lines())
    return policy


def _export(document: bytes | Node, origin: str, unresolved: Unresolved) -> Policy | None:
    """Read an export, which is the text of JSON or the root node of YAML. Return None if it is no export."""
    from sgfast.clouds.importing.reading import export_in_json, export_in_yaml, import_sources

    source = export_in_json(document, origin) if isinstance(document, bytes) else export_in_yaml(document, origin)
    return None if source is None else import_sources([source], unresolved=unresolved).policy()


def _has_key(node: Node, key: str) -> bool:
    return type(node) is MappingNode and any(name.value == key for name, _ in node.value)
