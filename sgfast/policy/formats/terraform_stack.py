"""A state, or the result of a plan, as resource instances that refer to each other by id.

A resource that does not exist yet has no id; its address is used instead. If an attribute is known only after apply,
``References`` finds the resources it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from operator import itemgetter
from typing import Any

from sgfast.errors import PolicyError
from sgfast.policy.formats.draft import Draft
from sgfast.policy.formats.location import Location, one_line
from sgfast.policy.formats.objects import JsonObject
from sgfast.policy.formats.terraform_references import References, Resource, Unresolved, at, module_steps
from sgfast.policy.yaml_nodes import show

_MOST_MODULES_DEEP = 100
_LISTED_NAMES = 5


class Stack:
    """The resource instances of one file, before or after a plan."""

    def __init__(self, file: str, values: Any, plan: Any = None, prior: Stack | None = None) -> None:
        """``values`` are those of a state, or the planned values of ``plan``, which starts from the state ``prior``."""
        self.file = file
        self.prior = prior
        self.resources: list[Resource] = []
        unknown = _unknown(file, plan) if plan is not None else {}
        self._read(JsonObject(values, Location(file, "Terraform", "")).object("root_module"), unknown)
        if prior is not None:  # planned values omit the data sources that were already read
            self.resources += [resource for resource in prior.resources if resource.is_data]
        self._by_type: dict[str, list[tuple[int, Resource]]] = {}
        for n, resource in enumerate(self.resources):
            self._by_type.setdefault(resource.type, []).append((n, resource))
        configuration = plan.get("configuration") if isinstance(plan, dict) else None
        self._references = References(configuration, self.resources)

    def _read(self, root: JsonObject, unknown: Mapping[str, Any]) -> None:
        modules = [(root, 0)]
        while modules:
            module, depth = modules.pop()
            if depth > _MOST_MODULES_DEEP:
                raise module.error("child_modules", f"are nested more than {_MOST_MODULES_DEEP} deep")
            address = module.text("address")
            try:
                steps = module_steps(address)
            except ValueError:
                raise module.error("address", f"{show(address)} is not a module address") from None
            for item in module.objects("resources"):
                address = item.required("address")
                kind, name, key = item.required("type"), item.required("name"), _key(item)
                is_data, values = item.text("mode") == "data", item.mapping("values")
                self.resources.append(
                    Resource(address, kind, name, key, steps, is_data, values, unknown.get(address, {}))
                )
            modules += [(child, depth + 1) for child in module.objects("child_modules")]

    def of(self, *types: str, data: bool = False) -> Iterator[Resource]:
        """The resources of some types in the file's order; with ``data``, data sources too."""
        numbered = [each for kind in types for each in self._by_type.get(kind, ())]
        for _, resource in sorted(numbered, key=itemgetter(0)):
            if data or not resource.is_data:
                yield resource

    def location(self, resource: Resource, kind: str, name: str = "") -> Location:
        """The location of a resource, which messages name with its address."""
        return Location(self.file, kind, self.identity(resource), name).part(one_line(resource.address))

    def fields(self, resource: Resource, location: Location | None = None) -> JsonObject:
        return JsonObject(resource.values, location or Location(self.file, "resource", resource.address))

    def identity(self, resource: Resource) -> str:
        """The resource's id, or its address if it does not exist yet."""
        return self.fields(resource).text("id") or resource.address

    def error(self, resource: Resource, message: str) -> PolicyError:
        return Location(self.file, "resource", resource.address).error(message)

    def note_guesses(self, draft: Draft) -> None:
        """Add a note for each local value whose resource was inferred."""
        for (address, attribute), source in self._references.guesses.items():
            location = Location(self.file, "resource", address).part(f"{attribute}: {one_line(source)}")
            draft.note("A plan does not show local values: assumed the only resource it can be", location)

    # Attributes

    def is_unknown(self, resource: Resource, attribute: str) -> bool:
        """Whether the whole attribute is known only after apply."""
        return at(resource.unknown, attribute) is True and at(resource.values, attribute) is None

    def has_unknown(self, resource: Resource, attribute: str) -> bool:
        """Whether any part of the attribute is known only after apply."""
        marks = [at(resource.unknown, attribute)]
        while marks:
            mark = marks.pop()
            if mark is True:
                return True
            marks += mark.values() if isinstance(mark, dict) else mark if isinstance(mark, list) else ()
        return False

    def is_configured(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration sets an attribute, rather than leaving it to the cloud."""
        return self._references.mentions(resource, attribute)

    def is_left_out(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration, which only a plan has, leaves an attribute out."""
        return self._references.leaves_out(resource, attribute)

    def id_of(self, resource: Resource, attribute: str, wanted: Set[str]) -> str:
        """The id in an attribute (``name`` or ``block.N.name``), or the identity of the resource whose id it will be.
        """
        if not self.is_unknown(resource, attribute):
            value = at(resource.values, attribute)
            if value is not None and not isinstance(value, str):
                raise self.error(resource, f"{attribute} must be a string")
            return value or ""
        sources = self.sources(resource, attribute, wanted)
        if len(sources) > 1:
            raise self._ambiguous(resource, attribute, sources)
        return self.identity(sources[0])

    def ids_of(self, resource: Resource, attribute: str, wanted: Set[str]) -> list[str]:
        """Like ``id_of``, for a list of ids."""
        if self.is_unknown(resource, attribute):
            return [self.identity(each) for each in self.sources(resource, attribute, wanted, is_all=True)]
        values = self.fields(resource).items(attribute)
        return self.filled(resource, attribute, [values], wanted)[0]

    def filled(self, resource: Resource, attribute: str, lists: list[list[Any]], wanted: Set[str]) -> list[list[str]]:
        """Replace the nulls in lists of ids, which stand for unknown ids, with the identities of their resources.

        The lists together are the whole value of the attribute's expression (for example of a block), so the resources
        it mentions are distributed among them. If that is ambiguous, it is an error.
        """
        known: set[str] = set()
        for value in (value for values in lists for value in values if value is not None):
            if not isinstance(value, str):
                raise self.error(resource, f"{attribute} must be a list of strings")
            known.add(value)
        lacking = [n for n, values in enumerate(lists) if None in values]
        result: list[list[str]] = [[value for value in values if value is not None] for values in lists]
        if lacking:
            sources = [each for each in self.sources(resource, attribute, wanted) if self.identity(each) not in known]
            count = lists[lacking[0]].count(None)
            if len(sources) == 1:
                for n in lacking:
                    result[n].append(self.identity(sources[0]))
            elif len(lacking) == 1 and len(sources) == count:
                result[lacking[0]] += [self.identity(source) for source in sources]
            else:
                raise self._ambiguous(resource, attribute, sources)
        return result

    def sources(self, resource: Resource, attribute: str, wanted: Set[str], *, is_all: bool = False) -> list[Resource]:
        """The resources of a ``wanted`` type that an attribute comes from. ``is_all`` means that no part of it is
        known.
        """
        try:
            return self._references.sources(resource, attribute, wanted, is_all=is_all)
        except Unresolved as why:
            raise self.error(resource, f"{attribute} is known only after apply: {why}") from None

    def _ambiguous(self, resource: Resource, attribute: str, sources: list[Resource]) -> PolicyError:
        said = ", ".join(show(source.address) for source in sources[:_LISTED_NAMES]) or "no fitting resource"
        more = f" and {len(sources) - _LISTED_NAMES} more" if len(sources) > _LISTED_NAMES else ""
        message = f"{attribute} is known only after apply, and the plan does not show which of {said}{more} it will be"
        return self.error(resource, message)


def _key(item: JsonObject) -> str | int | None:
    """The index of a resource with several instances."""
    key = item.get("index")
    if key is not None and (not isinstance(key, str | int) or isinstance(key, bool)):
        raise item.error("index", "must be a string or a whole number")
    return key


def _unknown(file: str, plan: Any) -> dict[str, Mapping[str, Any]]:
    """What is known only after apply, by resource address."""
    unknown: dict[str, Mapping[str, Any]] = {}
    for change in JsonObject(plan, Location(file, "Terraform plan", "")).objects("resource_changes"):
        if change.has("deposed"):  # the remains of a replaced resource, under the address of its replacement
            continue
        details = change.object("change")
        unknown[change.required("address")] = details.mapping("after_unknown") if details.get("after_unknown") else {}
    return unknown
