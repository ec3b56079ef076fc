"""A state, or the result of a plan, as resource instances that refer to each other by id.

A resource that does not exist yet has no id, so its address is used as its id. If an attribute is known only after
apply, ``References`` finds the resources from which its value comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from operator import itemgetter
from typing import Any

from sgfast.base.errors import PolicyError
from sgfast.clouds.importing.draft import Draft
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location, one_line
from sgfast.clouds.terraform.references import (
    Module,
    NotShown,
    References,
    Resource,
    at,
    has_true,
    module_steps,
)
from sgfast.policy.yaml_nodes import show

_MOST_MODULES_DEEP = 100
_LISTED_NAMES = 5
#: Attributes that do not say what passes: ids, and words for people.
_WORDS = frozenset((
    "id", "arn", "description", "effective_labels", "etag", "labels", "tags", "tags_all", "terraform_labels",
    "timeouts",
))  # fmt: skip


class Stack:
    """The resource instances of one file, before or after a plan."""

    def __init__(
        self, file: str, resources: Sequence[Resource], configuration: Any = None, prior: Stack | None = None
    ) -> None:
        """Store the resources. Only the result of a plan has a ``configuration``, and an earlier state ``prior``."""
        self.file = file
        self.prior = prior
        if prior is not None:  # The planned values lack data sources that were read before apply.
            planned = {resource.address for resource in resources}
            data = [source for source in prior.resources if source.is_data and source.address not in planned]
            resources = [*resources, *(source.resource for source in data)]
        self.resources: list[StackResource] = [StackResource(self, resource) for resource in resources]
        self._by_type: dict[str, list[tuple[int, StackResource]]] = {}
        for n, resource in enumerate(self.resources):
            self._by_type.setdefault(resource.type, []).append((n, resource))
        self.references = References(configuration, resources)

    def of_types(self, *types: str, data: bool = False) -> Iterator[StackResource]:
        """Yield the resources of some types in the file's order. ``data``: include data sources."""
        numbered = [resource for kind in types for resource in self._by_type.get(kind, ())]
        for _, resource in sorted(numbered, key=itemgetter(0)):
            if data or not resource.is_data:
                yield resource

    def note_guesses(self, draft: Draft) -> None:
        """Add a note for each value whose source was assumed (``References.guesses``)."""
        for (address, attribute), source in self.references.guesses.items():
            location = Location(self.file, "resource", address).part(f"{attribute}: {one_line(source)}")
            message = "A plan does not show local values, nor those of for_each: assumed the only resource it can be"
            draft.note(message, location)


class StackResource(JsonObject):
    """The fields of a resource instance, and the ids that it refers to."""

    def __init__(self, stack: Stack, resource: Resource) -> None:
        super().__init__(resource.values, Location(stack.file, "resource", resource.address))
        self._stack = stack
        self.resource = resource
        self.address, self.type, self.is_data = resource.address, resource.type, resource.is_data

    @property
    def identity(self) -> str:
        """The resource's id, or its address if it does not exist yet."""
        return self.text("id") or self.address

    def called(self, kind: str, name: str = "") -> Location:
        """Return a location for the object that the resource creates. Messages also name the resource's address."""
        return Location(self.location.file, kind, self.identity, name).part(one_line(self.address))

    def content(self) -> dict[str, Any]:
        """Return what the resource says, apart from words and ids, as ``Draft.unread_filter`` takes it."""
        values, unknown = self.resource.values, self.resource.unknown
        return {
            key: None if self.is_chosen_later(key) else
            [values.get(key), unknown[key]] if has_true(unknown.get(key)) else values.get(key, "")
            for key in (values.keys() | unknown.keys()) - _WORDS if values.get(key) is not None or unknown.get(key)
        }  # fmt: skip

    def is_unknown(self, attribute: str) -> bool:
        """Return whether the whole attribute is known only after apply, and the configuration may set it.

        If the configuration does not set an attribute, the provider will choose it. Such an attribute counts as not
        set, rather than as unknown.
        """
        return self.is_marked(attribute) and self._stack.references.may_set(self.resource, attribute)

    def has_unknown(self, attribute: str) -> bool:
        """Return whether any part of the attribute is known only after apply, and the configuration may set it."""
        if self.is_marked(attribute):
            return self._stack.references.may_set(self.resource, attribute)
        return self.has_marked(attribute)

    def is_chosen_later(self, attribute: str) -> bool:
        """Return whether the configuration does not set an attribute, so that the provider will choose its value."""
        return self.is_marked(attribute) and not self._stack.references.may_set(self.resource, attribute)

    def is_left_out(self, attribute: str) -> bool:
        """Return whether a plan's configuration leaves an attribute out. For a state, return False."""
        return self._stack.references.leaves_out(self.resource, attribute)

    def is_marked(self, attribute: str) -> bool:
        """Return whether a plan marks the whole attribute as known only after apply, whoever sets the attribute."""
        return at(self.resource.unknown, attribute) is True and at(self.resource.values, attribute) is None

    def has_marked(self, attribute: str) -> bool:
        """Return whether a plan marks any part of the attribute as known only after apply, whoever sets the attribute.
        """
        return has_true(at(self.resource.unknown, attribute))

    def id_of(self, attribute: str, wanted: Set[str]) -> str:
        """Return the id in an attribute (``name`` or ``block.N.name``). If a plan does not know the id yet, return the
        identity of the resource that will have it.
        """
        if not self.is_unknown(attribute):
            value = at(self.resource.values, attribute)
            if value is not None and not isinstance(value, str):
                raise self.error(attribute, "must be a string")
            return value or ""
        sources = self.sources(attribute, wanted)
        if len(sources) > 1:
            raise self._ambiguous(attribute, sources)
        return sources[0].identity

    def ids_of(self, attribute: str, source_types: Set[str]) -> list[str]:
        """Return the ids that an attribute lists, each like ``id_of`` returns it."""
        if self.is_unknown(attribute):
            return [source.identity for source in self.sources(attribute, source_types, is_all=True)]
        values = self.items(attribute)
        return self.filled(attribute, [values], source_types)[0]

    def possible_ids(self, attribute: str, source_types: Set[str]) -> list[str]:
        """Return the ids that an attribute may get. Empty if it is not set, or if the plan does not show its source."""
        if not self.is_unknown(attribute):
            return [value] if (value := self.id_of(attribute, source_types)) else []
        try:
            return [source.identity for source in self._shown_sources(attribute, source_types)]
        except NotShown:
            return []

    def filled(self, attribute: str, lists: list[list[Any]], source_types: Set[str]) -> list[list[str]]:
        """Replace each null in lists of ids, which means an unknown id, by the identity of the resource that will have
        the id.

        The lists together are the whole value of the attribute's expression (for example of a block). Therefore the
        resources that the expression mentions are distributed among the lists. Raises PolicyError if that is ambiguous.
        """
        known_ids: set[str] = set()
        for value in (value for values in lists for value in values if value is not None):
            if not isinstance(value, str):
                raise self.error(attribute, "must be a list of strings")
            known_ids.add(value)
        lacking = [n for n, values in enumerate(lists) if None in values]
        result: list[list[str]] = [[value for value in values if value is not None] for values in lists]
        if lacking:
            sources = [source for source in self.sources(attribute, source_types) if source.identity not in known_ids]
            count = lists[lacking[0]].count(None)
            if len(sources) == 1:
                for n in lacking:
                    result[n].append(sources[0].identity)
            elif len(lacking) == 1 and len(sources) == count:
                result[lacking[0]] += [source.identity for source in sources]
            else:
                raise self._ambiguous(attribute, sources)
        return result

    def sources(self, attribute: str, wanted: Set[str], *, is_all: bool = False) -> list[StackResource]:
        """Find the resources of a ``wanted`` type from which an attribute's value comes. ``is_all``: no part of the
        value is known. Raises PolicyError if the plan does not show them.
        """
        try:
            return self._shown_sources(attribute, wanted, is_all=is_all)
        except NotShown as why:
            raise self.error(attribute, f"is known only after apply: {why}") from None

    def _shown_sources(self, attribute: str, source_types: Set[str], *, is_all: bool = False) -> list[StackResource]:
        sources = self._stack.references.sources(self.resource, attribute, source_types, is_all=is_all)
        return [StackResource(self._stack, source) for source in sources]

    def _ambiguous(self, attribute: str, sources: list[StackResource]) -> PolicyError:
        candidates = ", ".join(show(source.address) for source in sources[:_LISTED_NAMES]) or "no fitting resource"
        rest_text = f" and {len(sources) - _LISTED_NAMES} more" if len(sources) > _LISTED_NAMES else ""
        message = f"is known only after apply, and the plan does not show which of {candidates}{rest_text} it will be"
        return self.error(attribute, message)


# Files --------------------------------------------------------------------------------------------------------------


def resources_of_values(file: str, values: Any, plan: Any = None) -> list[Resource]:
    """Read the resource instances in ``values``: the values of a state, or the planned values of ``plan``."""
    unknown = _unknown(file, plan) if plan is not None else {}
    resources: list[Resource] = []
    modules = [(JsonObject(values, Location(file, "Terraform", "")).nested("root_module"), 0)]
    while modules:
        module, depth = modules.pop()
        if depth > _MOST_MODULES_DEEP:
            raise module.error("child_modules", f"are nested more than {_MOST_MODULES_DEEP} deep")
        steps = _module(module, "address")
        for item in module.objects("resources"):
            address = item.required("address")
            kind, name, key = item.required("type"), item.required("name"), _key(item, "index")
            is_data, attributes = item.text("mode") == "data", item.mapping("values")
            marks = unknown.get(address, {})
            resources.append(Resource(address, kind, name, key, steps, is_data, attributes, marks))
        modules += [(child, depth + 1) for child in module.objects("child_modules")]
    return resources


def resources_of_state(document: JsonObject) -> list[Resource]:
    """Read the resource instances in a state file of version 4."""
    resources: list[Resource] = []
    for item in document.objects("resources"):
        kind, name, is_data = item.required("type"), item.required("name"), item.text("mode") == "data"
        steps, module = _module(item, "module"), item.text("module")
        block = f"{module + '.' if module else ''}{'data.' if is_data else ''}{kind}.{name}"
        for instance in item.objects("instances"):
            if instance.has("deposed"):  # This is a replaced resource that is not destroyed yet.
                continue
            if instance.has("attributes_flat"):
                message = "is of a provider before Terraform 0.12: run terraform apply -refresh-only, which rewrites it"
                raise instance.error("attributes_flat", message)
            key = _key(instance, "index_key")
            address = block if key is None else f"{block}[{json.dumps(key, ensure_ascii=False)}]"
            resources.append(Resource(address, kind, name, key, steps, is_data, instance.mapping("attributes")))
    return resources


def _module(item: JsonObject, attribute: str) -> Module:
    address = item.text(attribute)
    try:
        return module_steps(address)
    except ValueError:
        raise item.error(attribute, f"{show(address)} is not a module address") from None


def _key(item: JsonObject, attribute: str) -> str | int | None:
    """Return the key of a resource instance: a string with ``for_each``, a number with ``count``, else None."""
    key = item.get(attribute)
    if key is not None and (not isinstance(key, str | int) or isinstance(key, bool)):
        raise item.error(attribute, "must be a string or a whole number")
    return key


def _unknown(file: str, plan: Any) -> dict[str, Mapping[str, Any]]:
    """Return the marks of values that are known only after apply, by resource address."""
    unknown: dict[str, Mapping[str, Any]] = {}
    for change in JsonObject(plan, Location(file, "Terraform plan", "")).objects("resource_changes"):
        if change.has("deposed"):  # This is a replaced resource, under the same address as its replacement.
            continue
        details = change.nested("change")
        unknown[change.required("address")] = details.mapping("after_unknown") if details.get("after_unknown") else {}
    return unknown
