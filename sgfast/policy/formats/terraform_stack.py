"""A state, or what a plan makes of it, as resource instances whose references to each other are ids.

A resource that is not made yet has no id: its address stands for it. Where an attribute is known only after the plan
was applied, ``References`` finds the resources it comes from.
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
    """The resource instances of one file, at one time."""

    def __init__(self, file: str, values: Any, plan: Any = None, prior: Stack | None = None) -> None:
        """``values``: of a state, or the planned ones of a ``plan``, ``prior`` to which something else was."""
        self.file = file
        self.prior = prior
        self.resources: list[Resource] = []
        unknown = _unknown(file, plan) if plan is not None else {}
        self._read(JsonObject(values, Location(file, "Terraform", "")).object("root_module"), unknown)
        if prior is not None:  # a plan's values lack what was looked up already
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
                raise module.error("address", f"{show(address)} is no module's") from None
            for item in module.objects("resources"):
                address = item.required("address")
                kind, name, key = item.required("type"), item.required("name"), _key(item)
                is_data, values = item.text("mode") == "data", item.mapping("values")
                self.resources.append(
                    Resource(address, kind, name, key, steps, is_data, values, unknown.get(address, {}))
                )
            modules += [(child, depth + 1) for child in module.objects("child_modules")]

    def of(self, *types: str, data: bool = False) -> Iterator[Resource]:
        """The resources of some types, in the file's order; with ``data`` what was looked up too, not only what is
        managed."""
        numbered = [each for kind in types for each in self._by_type.get(kind, ())]
        for _, resource in sorted(numbered, key=itemgetter(0)):
            if data or not resource.is_data:
                yield resource

    def location(self, resource: Resource, kind: str, name: str = "") -> Location:
        """The object a resource is: messages say its address too."""
        return Location(self.file, kind, self.identity(resource), name).part(one_line(resource.address))

    def fields(self, resource: Resource, location: Location | None = None) -> JsonObject:
        return JsonObject(resource.values, location or Location(self.file, "resource", resource.address))

    def identity(self, resource: Resource) -> str:
        """Its id; its address if it is not made yet."""
        return self.fields(resource).text("id") or resource.address

    def error(self, resource: Resource, message: str) -> PolicyError:
        return Location(self.file, "resource", resource.address).error(message)

    def tell_guesses(self, draft: Draft) -> None:
        """Notes of what was taken for the only thing it can be."""
        for (address, attribute), source in self._references.guesses.items():
            location = Location(self.file, "resource", address).part(f"{attribute}: {one_line(source)}")
            draft.note("A local value, which a plan does not show, is taken for the only one it can be", location)

    # Attributes

    def is_unknown(self, resource: Resource, attribute: str) -> bool:
        """Whether all of it is known only after the plan was applied."""
        return at(resource.unknown, attribute) is True and at(resource.values, attribute) is None

    def has_unknown(self, resource: Resource, attribute: str) -> bool:
        """Whether anything in it is known only after the plan was applied."""
        marks = [at(resource.unknown, attribute)]
        while marks:
            mark = marks.pop()
            if mark is True:
                return True
            marks += mark.values() if isinstance(mark, dict) else mark if isinstance(mark, list) else ()
        return False

    def is_configured(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration says anything of an attribute, rather than leaving it to the cloud."""
        return self._references.mentions(resource, attribute)

    def is_left_out(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration, which a state has not, says nothing of an attribute."""
        return self._references.leaves_out(resource, attribute)

    def id_of(self, resource: Resource, attribute: str, wanted: Set[str]) -> str:
        """The id an attribute (``name`` or ``block.N.name``) holds, or the identity of what it will be that of."""
        if not self.is_unknown(resource, attribute):
            value = at(resource.values, attribute)
            if value is not None and not isinstance(value, str):
                raise self.error(resource, f"{attribute} must be a text")
            return value or ""
        sources = self.sources(resource, attribute, wanted)
        if len(sources) > 1:
            raise self._ambiguous(resource, attribute, sources)
        return self.identity(sources[0])

    def ids_of(self, resource: Resource, attribute: str, wanted: Set[str]) -> list[str]:
        """Likewise the ids in a list."""
        if self.is_unknown(resource, attribute):
            return [self.identity(each) for each in self.sources(resource, attribute, wanted, is_all=True)]
        values = self.fields(resource).items(attribute)
        return self.filled(resource, attribute, [values], wanted)[0]

    def filled(self, resource: Resource, attribute: str, lists: list[list[Any]], wanted: Set[str]) -> list[list[str]]:
        """Lists of ids in which null is what is not known yet, each with the identities instead.

        The lists are all that the attribute's expression says (``attribute`` is a block's, say), so that the resources
        it mentions are shared out among them; where that is ambiguous, it is an error.
        """
        known: set[str] = set()
        for value in (value for values in lists for value in values if value is not None):
            if not isinstance(value, str):
                raise self.error(resource, f"{attribute} must be a list of texts")
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
        """The resources of a ``wanted`` type that an attribute comes from; ``is_all`` if nothing of it is known."""
        try:
            return self._references.sources(resource, attribute, wanted, is_all=is_all)
        except Unresolved as why:
            raise self.error(resource, f"{attribute} is known only after apply: {why}") from None

    def _ambiguous(self, resource: Resource, attribute: str, sources: list[Resource]) -> PolicyError:
        said = ", ".join(show(source.address) for source in sources[:_LISTED_NAMES]) or "nothing that fits"
        more = f" and {len(sources) - _LISTED_NAMES} more" if len(sources) > _LISTED_NAMES else ""
        message = f"{attribute} is known only after apply, and the plan does not show which it will be of {said}{more}"
        return self.error(resource, message)


def _key(item: JsonObject) -> str | int | None:
    """The index of one of several."""
    key = item.get("index")
    if key is not None and (not isinstance(key, str | int) or isinstance(key, bool)):
        raise item.error("index", "must be a text or a whole number")
    return key


def _unknown(file: str, plan: Any) -> dict[str, Mapping[str, Any]]:
    """By address: what of a resource is known only after the plan was applied."""
    unknown: dict[str, Mapping[str, Any]] = {}
    for change in JsonObject(plan, Location(file, "Terraform plan", "")).objects("resource_changes"):
        if change.has("deposed"):  # what is left of a replaced one, under the address of the new
            continue
        details = change.object("change")
        unknown[change.required("address")] = details.mapping("after_unknown") if details.get("after_unknown") else {}
    return unknown
