"""Loads a policy from a file or text: a policy document (SPEC 2) or a cloud's export."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from yaml.nodes import MappingNode, Node, ScalarNode

from sgfast.policy.document_reader import DocumentReader, Lines
from sgfast.policy.export_files import refuse_terraform_input
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import compose, garbage_collection_paused, read_document

if TYPE_CHECKING:
    from sgfast.policy.formats import Unresolved

__all__ = ["Lines", "load_policy", "parse_policy"]

#: How far into the text to look for the bracket that JSON starts with. Past that, the text is read as YAML, which
#: accepts JSON too.
_BLANK_CHARACTERS = 1000


def load_policy(
    path: str | os.PathLike[str],
    lines: Lines | None = None,
    *,
    format: str = "auto",
    unresolved: Unresolved = "error",
) -> Policy:
    """Load the policy in a file; ``-`` is standard input.

    The file may also be a cloud's export, or a directory of exports that form one policy. ``format`` is then the name
    of its format (SPEC 10.17), and ``unresolved`` says what to do with references to what no file holds (SPEC 2.13). If
    ``lines`` is given, it receives the line numbers of a document's items. A PolicyError is one line that names file,
    line and field.
    """
    if format != "auto" or (os.fsdecode(path) != "-" and os.path.isdir(path)):
        from sgfast.policy.formats import load

        return load([path], format, unresolved).policy()
    data, origin = read_document(path)
    refuse_terraform_input(data, origin)
    return parse_policy(data, origin, lines, unresolved=unresolved)


def parse_policy(
    text: str | bytes,
    origin: str = "<policy>",
    lines: Lines | None = None,
    *,
    unresolved: Unresolved = "error",
) -> Policy:
    """Parse a document or a cloud's export. Messages call it ``origin``; the rest is as in ``load_policy``."""
    with garbage_collection_paused():
        if text[:_BLANK_CHARACTERS].lstrip()[:1] in (b"{", b"[", "{", "["):
            # Text that looks like JSON is more likely an export than a document.
            data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            exported = _export(data, origin, unresolved)
            if exported is not None:
                return exported
        root = compose(text, origin)
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
    """The policy in an export, which is JSON or the root of YAML; None if it is no export."""
    from sgfast.policy.formats import export_in_json, export_in_yaml, import_sources

    source = export_in_json(document, origin) if isinstance(document, bytes) else export_in_yaml(document, origin)
    return None if source is None else import_sources([source], unresolved=unresolved).policy()


def _has_key(node: Node, key: str) -> bool:
    return type(node) is MappingNode and any(name.value == key for name, _ in node.value)
