"""Read documents that are a list under one key, such as expectations and accepted findings (SPEC 2.14, 10.12)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from yaml.nodes import Node

from sgfast.base.errors import ArgumentTypeError
from sgfast.policy.field_kinds import Form
from sgfast.policy.node_reader import NodeReader
from sgfast.policy.plain_values import compose_values, path_in
from sgfast.policy.yaml_nodes import compose, garbage_collection_paused, read_document

Item = TypeVar("Item")


def compose_source(source: object, key: str, title: str) -> tuple[Node, str]:
    """Return the root node of a document and its name for messages. ``source``: a path, the content as plain values, or
    only the list that stands under ``key``. ``title``: what the document holds.

    Raises PolicyError for a file that cannot be read, ArgumentTypeError for other values.
    """
    if (path := path_in(source)) is not None:
        return compose_text(*read_document(path))
    if not isinstance(source, Mapping | list | tuple):
        raise ArgumentTypeError(f"{title} must be a path, a mapping or a list, not {source!r:.80}")
    origin = f"<{title}>"
    return compose_values(source if isinstance(source, Mapping) else {key: source}, origin), origin


def compose_text(text: str | bytes, origin: str) -> tuple[Node, str]:
    """Return the root node of a document and its name for messages."""
    with garbage_collection_paused():
        return compose(text, origin), origin


def read_items(
    root: Node, origin: str, form: Form, key: str, read_item: Callable[[NodeReader, Node, str], Item], empty: str = ""
) -> tuple[Item, ...]:
    """Read each item of the list under ``key``. ``form``: the fields of the document. ``read_item``: reads the node of
    an item, whose path is given for messages. ``empty``: the error for an empty list; without it, there may be none.

    Raises PolicyError with a line for each error.
    """
    with garbage_collection_paused():
        reader = NodeReader(origin, keeps_errors=True)
        document = form.read(reader, root, "")
        if "version" in document.nodes:
            with reader.errors:
                document.read("version")
        nodes = document.items(key)
        if empty and not nodes:
            raise document.error(key, empty)
        items = []
        for node, path in nodes:
            with reader.errors:
                items.append(read_item(reader, node, path))
        reader.errors.raise_all()
        return tuple(items)
