"""Detect the format of an export and read it. Several files may form one policy, such as groups in one file and ports
in another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from yaml.nodes import Node

from sgfast.base.errors import ArgumentError, PolicyError
from sgfast.clouds.aws import output_formats as aws_output_formats
from sgfast.clouds.importing.conversion import policy_of, yaml_of
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.formats import Format
from sgfast.clouds.importing.sources import Source, json_value, plain_source, read_sources
from sgfast.clouds.importing.unresolved import addresses_in, has_entries, is_address_file, resolve
from sgfast.clouds.providers import FORMATS
from sgfast.clouds.terraform.provider import DOCUMENT_KEYS
from sgfast.clouds.unread import UNREAD_CLOUDS
from sgfast.policy.export_files import Unresolved
from sgfast.policy.model import Policy
from sgfast.policy.yaml_nodes import garbage_collection_paused, shown_origin

_POLICY_SECTIONS = {"quotas", "settings", "vpcs", "peerings", "address_groups", "security_groups", "instances"}
#: The number of first items of a list that are looked at to detect the list's format.
_LOOKED_AT = 200
#: The APIs and templates of clouds that are not read list their objects under these keys.
_OTHER_LISTS = ("items", "value", "resources")


class Imported(NamedTuple):
    """The result of reading an export."""

    format: Format
    draft: Draft
    origin: str

    def policy(self) -> Policy:
        """Build the policy. A PolicyError names the object that is not valid."""
        return policy_of(self.draft.made, self.origin)

    def yaml(self, head: Sequence[str]) -> str:
        """Write the policy document as YAML, with the lines of ``head`` as comments at its beginning."""
        return yaml_of(self.draft.made, head)

    def summary(self) -> str:
        """Summarize the policy: ``2 security groups with 7 rules, 1 address group, 3 instances, 1 VPC``."""
        document = self.draft.document()
        rules = sum(len(group["rules"]) for group in document["security_groups"])
        parts = [f"{_number(len(document['security_groups']), 'security group')} with {_number(rules, 'rule')}"]
        if "address_groups" in document:
            parts.append(_number(len(document["address_groups"]), "address group"))
        parts += [_number(len(document["instances"]), "instance"), _number(len(document.get("vpcs", [None])), "VPC")]
        if "peerings" in document:
            parts.append(_number(len(document["peerings"]), "peering"))
        return ", ".join(parts)


def load(
    paths: Sequence[str | os.PathLike[str]], name: str = "auto", unresolved: Unresolved = "error"
) -> Imported:
    """Read files, and the files in directories, as one export. ``name`` is a format's name or "auto"."""
    if [*map(os.fsdecode, paths)].count("-") > 1:
        raise PolicyError("standard input (-) can be read only once")
    origin = os.fsdecode(paths[0]) if len(paths) == 1 else ""
    with garbage_collection_paused():
        return import_sources([source for path in paths for source in read_sources(path)], name, origin, unresolved)


def import_sources(
    sources: Sequence[Source], name: str = "auto", origin: str = "", unresolved: Unresolved = "error", *,
    takes_files: bool = True,
) -> Imported:  # fmt: skip
    """Read one or more files as one export. Messages call the policy ``origin``. ``takes_files``: whether the user can
    add files.

    A PolicyError names the file and the object that cannot be imported.
    """
    all_files = sources[0].file + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    origin = origin or all_files
    pages = [page for source in sources if not is_address_file(source) for page in _pages(source)]
    chosen, used, passed_over = _choose(pages, name, origin)
    list_pages: list[Source] = []
    export_pages: list[Source] = []
    for page in used:
        (list_pages if chosen.takes_entries and has_entries(page) else export_pages).append(page)
    addresses = addresses_in(filter(is_address_file, sources), list_pages)
    # If there are only lists, the format's reader says what is missing.
    draft = chosen.read(export_pages or used)
    for source in passed_over:
        message = f"Passed over because it is no export of {chosen.title}"
        draft.note(message, source.location("file", source.file.removeprefix(os.path.join(origin, ""))), whole=True)
    resolve(draft, addresses, unresolved, origin, chosen.lists_groups, takes_files=takes_files)
    return Imported(chosen, draft, origin)


def export_in_json(data: bytes, origin: str) -> Source | None:
    """Parse an export from a text that starts like JSON. Return None if it is not JSON, or not an export."""
    try:
        value = json_value(data, origin)
    except (PolicyError, ValueError):
        return None
    return _exported(Source(origin, value))


def export_in_yaml(root: Node, origin: str) -> Source | None:
    """Convert a YAML document without the key ``version`` into an export. Return None if it is not an export."""
    return _exported(plain_source(root, origin))


def _exported(source: Source) -> Source | None:
    if _other_cloud(source.value):
        raise source.error(_not_known(source.value))
    return source if _is_export(source.value) else None


def _is_export(value: object) -> bool:
    """Return whether a document may be an export, rather than a policy document (SPEC 2)."""
    if _is_document(value):
        return False
    top, below = _keys(value)
    with_ids = any(f"{section}.id" in below for section in top)
    if top <= _POLICY_SECTIONS and not with_ids:
        return False  # This is a policy document without its version.
    return any(form.sections & top and (form.own & below or with_ids) for form in FORMATS.values())


def _is_document(value: object) -> bool:
    """Return whether a value is a policy document. A state file of Terraform has a version, too."""
    return isinstance(value, dict) and "version" in value and not DOCUMENT_KEYS & value.keys()


def _other_cloud(value: object) -> str:
    """Return the name of another cloud whose objects a value holds, or "" if it holds none."""
    inner = [value[key] for key in _OTHER_LISTS if key in value] if isinstance(value, dict) else []
    for mapping in _flat([value, *inner]):
        if isinstance(mapping, dict):
            for cloud, (key, beginning) in UNREAD_CLOUDS.items():
                if str(mapping.get(key)).startswith(beginning):
                    return cloud
    return ""


def _not_known(value: object) -> str:
    """Say what a value is that is no known export, and what to do."""
    if _is_document(value):
        return "is already a policy document, not an export: give it as POLICY itself"
    if cloud := _other_cloud(value):
        return (
            f"is an export of {cloud}, which sgfast does not read (it reads {', '.join(FORMATS)}): write the rules as "
            "a policy document (sgfast template)"
        )
    return f"not a known export; known are {_titles(FORMATS)}"


def _pages(source: Source) -> Iterator[Source]:
    """Split a file that is a list of documents, such as the pages of one listing. Any other file is yielded as it is.
    """
    value = source.value
    if not isinstance(value, list) or not value or not all(map(_is_page, value)):
        yield source
        return
    last = {frozenset(_listings(page)): n for n, page in enumerate(value)}
    for n, page in enumerate(value):
        yield source._replace(value=page, is_continued=last[frozenset(_listings(page))] > n)


def _is_page(value: object) -> bool:
    """Return whether a value is a whole document with lists of objects, rather than an object."""
    if not isinstance(value, dict):
        return False
    lists = _listings(value)
    other_keys = {key for key in value if not key.endswith("_links")} - lists
    return any(lists and lists <= form.sections and other_keys <= form.paging for form in FORMATS.values())


def _listings(page: dict[str, object]) -> set[str]:
    return {key for key, items in page.items() if isinstance(items, list) and not key.endswith("_links")}


def _choose(sources: Sequence[Source], name: str, origin: str) -> tuple[Format, list[Source], list[Source]]:
    """Choose the format of an export. Return it with the files to read, and the files in directories to pass over."""
    if not sources:
        raise PolicyError(f"{shown_origin(origin)}: has no file of an export")
    if name not in ("auto", *FORMATS):
        raise ArgumentError(f"format must be one of auto, {', '.join(FORMATS)}, not {name!r:.80}")
    detected = [_detected_formats(source) for source in sources]
    chosen = FORMATS[name] if name != "auto" else _detect_format(sources, detected, origin)
    used: list[Source] = []
    passed_over: list[Source] = []
    for source, (fitting, _) in zip(sources, detected, strict=True):
        (passed_over if source.is_found and chosen.name not in fitting else used).append(source)
    if not used:
        raise PolicyError(f"{shown_origin(origin)}: no file in it is an export of {chosen.title}")
    return chosen, used, passed_over


def _detected_formats(source: Source) -> tuple[set[str], set[str]]:
    """Return the names of the formats that a file may have, and of those for which it also has a key of their own."""
    if _is_document(source.value) or _other_cloud(source.value):
        return set(), set()
    top, below = _keys(source.value)
    fitting = {
        name for name, form in FORMATS.items() if form.sections & top or (form.takes_entries and has_entries(source))
    }
    return fitting, {name for name in fitting if FORMATS[name].own & below}


def _detect_format(sources: Sequence[Source], detected: Sequence[tuple[set[str], set[str]]], origin: str) -> Format:
    possible = set(FORMATS)
    first = sources[0]

    def narrow(source: Source, fitting: set[str]) -> None:
        nonlocal possible, first
        if possible == set(FORMATS):
            first = source
        possible &= fitting

    # A file found in a directory may be no part of the export. Without a key of a format's own, it does not determine
    # the format, and counts only if it fits the other files.
    doubtful = []
    for source, (fitting, surely) in zip(sources, detected, strict=True):
        if source.is_found and not surely:
            doubtful.append((source, fitting))
        elif possible & fitting:
            narrow(source, fitting)
        elif fitting:
            raise source.error("has another format than the files before it: import one cloud at a time")
        else:
            raise source.error(_not_known(source.value))
    for source, fitting in doubtful:
        if possible & fitting:
            narrow(source, fitting)
    if possible == set(FORMATS):
        for source in sources:
            if _is_document(source.value) or _other_cloud(source.value):
                raise source.error(_not_known(source.value))
        file = first.file.removeprefix(os.path.join(origin, "")) + (", ..." if len(sources) > 1 else "")
        message = f"has {_number(len(sources), 'file')} ({shown_origin(file)}), but no known export"
        raise PolicyError(f"{shown_origin(origin)}: {message}; known are {_titles(FORMATS)}")
    sure = {name for _, surely in detected for name in surely}
    likely = [name for name in FORMATS if name in possible & sure] or [name for name in FORMATS if name in possible]
    if len(likely) > 1:
        commands = " or ".join(f"sgfast import {name}" for name in likely)
        titles = _titles({name: FORMATS[name] for name in likely})
        raise first.error(f"the format is ambiguous, {titles}: choose one with {commands}")
    return FORMATS[likely[0]]


def _titles(formats: dict[str, Format]) -> str:
    return ", ".join(f"{name} ({export_format.title})" for name, export_format in formats.items())


def _keys(value: object) -> tuple[set[str], set[str]]:
    """Return the keys at the top level (for a list: the keys of its items), and all keys of the top three levels."""
    value = aws_output_formats.in_sections(value)
    levels: list[set[str]] = []
    values: list[object] = [value]
    for _ in range(3):
        mappings = [value for value in _flat(values) if isinstance(value, dict)]
        levels.append({key for mapping in mappings for key in mapping if isinstance(key, str)})
        values = [child for mapping in mappings for child in mapping.values()]
    sections = value.items() if isinstance(value, dict) else ()
    of_sections = {f"{section}.{key}" for section, items in sections for key in _keys_of_items(items)}
    return levels[0], of_sections.union(*levels)


def _keys_of_items(items: object) -> set[object]:
    return {key for item in _flat([items]) if isinstance(item, dict) for key in item}


def _flat(values: list[object]) -> Iterator[object]:
    for value in values:
        if isinstance(value, list):
            yield from islice(value, _LOOKED_AT)
        else:
            yield value


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
