"""Which resources a value comes from that Terraform knows only after it has made them.

A plan leaves such a value out. Its ``configuration`` says which names the expression mentions, though not how it puts
them together: ``aws_security_group.web[each.key].id`` is there as ``aws_security_group.web`` and ``each.key``. From
these names, through the variables and outputs of modules, the resource instances are found that the value can come
from. What a plan does not show at all are local values: one is taken for the only resource it can be, or is an error.
Nor does it show what is written out beside names: of ``[aws_security_group.new.id, "sg-0123"]`` the former only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sgfast.policy.yaml_nodes import show

Key = str | int | None
"""Which one of several: ``for_each``'s key, ``count``'s index; None where there is but one."""

#: Names and expressions looked at for one value. Modules may hand a value on and on.
_MOST_NAMES = 10_000
_DEEPEST = 100
#: Resources found for all values of a plan together.
_MOST_FOUND = 3_000_000
_NAME = r"[^\W\d][\w-]*"
_KEY = r'\[(?:(?P<number>\d{1,9})|"(?P<text>(?:[^"\\]|\\.)*)")\]'
_STEP = re.compile(rf"(?P<name>{_NAME})(?:{_KEY})?(?:\.|$|(?=\[))")
#: What stands in an expression and is no value of the plan's.
_NO_SOURCE = frozenset(("path", "terraform", "self"))
_BY_KEY = frozenset(("each.key", "count.index"))


class Unresolved(Exception):
    """Why the resources cannot be found."""


class Step(NamedTuple):
    name: str
    key: Key


Module = tuple[Step, ...]
"""Where a module instance is, from the root module down."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource instance of a state, or of what a plan makes of it."""

    address: str
    type: str
    name: str
    key: Key
    module: Module
    is_data: bool
    values: Mapping[str, Any] = field(repr=False)
    #: By attribute, what of it is known only after the plan was applied: true, or where within it.
    unknown: Mapping[str, Any] = field(default_factory=dict, repr=False)


def module_steps(address: str) -> Module:
    """``module.a["x"].module.b`` in steps. ValueError where it is none."""
    steps = _steps(address)
    if len(steps) % 2 or any(step != Step("module", None) for step in steps[::2]):
        raise ValueError(address)
    return tuple(steps[1::2])


def _steps(text: str) -> list[Step]:
    """``a["b"].c`` as its names, each with the key after it. ValueError for what is no such path."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(text)
        number, key = match["number"], match["text"]
        steps.append(Step(match["name"], int(number) if number else key and re.sub(r"\\(.)", r"\1", key)))
        at = match.end()
        if text[at : at + 1] == "[":  # a second key: of something within the value
            steps.append(Step("[]", None))
            at = text.find("]", at) + 1 or len(text)
            at += text[at : at + 1] == "."
    return steps


@dataclass(frozen=True, slots=True)
class _Scope:
    """Where an expression stands: what ``var``, ``module`` and ``each`` mean there."""

    module: Module
    key: Key = None
    #: The names that ``for_each`` mentions, for ``each.value``.
    for_each: Sequence[str] = ()


class References:
    """Finds resource instances by the names a plan's configuration mentions."""

    def __init__(self, configuration: Any, resources: Sequence[Resource]) -> None:
        self._root = _mapping(_mapping(configuration).get("root_module"))
        self._instances: dict[tuple[Module, bool, str, str], dict[Key, Resource]] = {}
        self._modules: dict[tuple[Module, str], dict[Key, None]] = {}
        self._blocks: dict[tuple[str, ...], dict[tuple[str, str], Mapping[str, Any]]] = {}
        #: By module, what in it and below has no id yet: what its local values can come from.
        self._unmade: dict[Module, list[Resource]] = {}
        for resource in resources:
            location = resource.module, resource.is_data, resource.type, resource.name
            self._instances.setdefault(location, {})[resource.key] = resource
            unmade = not resource.is_data and not resource.values.get("id")
            for depth, step in enumerate(resource.module):
                self._modules.setdefault((resource.module[:depth], step.name), {})[step.key] = None
            for depth in range(len(resource.module) + 1 if unmade else 0):
                self._unmade.setdefault(resource.module[:depth], []).append(resource)
        self._names_left = 0
        self._found_left = _MOST_FOUND
        self._wanted: Set[str] = frozenset()
        self._is_all = False
        #: Where a local value was taken for the only thing it can be: the resource, its attribute and what it is.
        self.guesses: dict[tuple[str, str], str] = {}

    def sources(self, resource: Resource, attribute: str, wanted: Set[str], *, is_all: bool = False) -> list[Resource]:
        """The resource instances of a ``wanted`` type that an attribute's expression mentions, in its order.

        Unresolved says why that cannot be told. ``attribute`` is a top-level one, or ``block.N.attribute``. ``is_all``:
        nothing of the value is known, so that what the expression takes from elsewhere must not go unnoticed.
        """
        block = self._block(resource)
        names = _names(at(block.get("expressions"), attribute))
        if not names:
            raise Unresolved("the plan's configuration does not show what it refers to")
        self._names_left, self._wanted, self._is_all = _MOST_NAMES, wanted, is_all
        found: dict[str, Resource] = {}
        scope = _Scope(resource.module, resource.key, _names(block.get("for_each_expression")))
        for source in self._found(names, scope, 0, by_key=False):
            self._found_left -= 1
            if self._found_left < 0:
                raise Unresolved("the plan's expressions mention too many resources")
            if source.type in wanted:
                found[source.address] = source
        if not found:
            raise Unresolved(f"it refers to {show(_longest(names)[0])}, which is no resource that could be meant")
        if any(name.startswith("local.") for name in names):
            self.guesses[resource.address, attribute] = next(iter(found))
        return list(found.values())

    def mentions(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration has an expression for an attribute."""
        return at(self._block(resource).get("expressions"), attribute) not in (None, {}, [])

    def leaves_out(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration has the resource, and no expression for an attribute."""
        return bool(self._block(resource)) and not self.mentions(resource, attribute)

    def _block(self, resource: Resource) -> Mapping[str, Any]:
        """The resource's block in the configuration."""
        path = tuple(step.name for step in resource.module)
        blocks = self._blocks.get(path)
        if blocks is None:
            blocks = self._blocks[path] = {}
            listed = self._configured(resource.module).get("resources")
            for each in listed if isinstance(listed, list) else ():
                if isinstance(each, dict) and each.get("mode") != "data":
                    blocks[str(each.get("type")), str(each.get("name"))] = each
        return blocks.get((resource.type, resource.name), {})

    def _configured(self, module: Module) -> Mapping[str, Any]:
        found = self._root
        for step in module:
            found = _mapping(self._call(found, step.name).get("module"))
        return found

    @staticmethod
    def _call(module: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        return _mapping(_mapping(module.get("module_calls")).get(name))

    # Names to resources

    def _found(self, names: Sequence[str], scope: _Scope, depth: int, *, by_key: bool) -> Iterator[Resource]:
        """Every resource instance the names stand for. ``by_key``: of several, the one with the scope's own key."""
        if depth > _DEEPEST:
            raise Unresolved("its value is handed on through too many modules")
        whole = _longest(names)
        by_key = by_key or any(name in _BY_KEY for name in whole)
        for name in whole:
            self._names_left -= 1
            if self._names_left < 0:
                raise Unresolved("its expression mentions too many names")
            if name in _BY_KEY:
                continue
            try:
                steps = _steps(name)
            except ValueError:
                raise Unresolved(f"it refers to {show(name)}, which is not understood") from None
            yield from self._of_name(name, steps, scope, depth, by_key)

    def _of_name(self, name: str, steps: list[Step], scope: _Scope, depth: int, by_key: bool) -> Iterator[Resource]:
        head = steps[0].name
        if head in _NO_SOURCE:
            return
        if len(steps) < 2:
            raise Unresolved(f"it refers to {show(name)}, whose value a plan does not show")
        if head == "each":
            # Its for_each is evaluated where the resource stands, and has the keys the resource has.
            self._refuse_known(name, not scope.for_each)
            yield from self._found(scope.for_each, scope, depth + 1, by_key=True)
        elif head == "local":
            yield self._of_local(name, scope, depth)
        elif head == "var":
            yield from self._of_variable(name, steps[1].name, scope, depth)
        elif head == "module":
            if len(steps) < 3:
                raise Unresolved(f"it refers to the whole of {show(name)}: which of its outputs is meant is not shown")
            call, output = steps[1], steps[2].name
            for key in _meant(self._modules.get((scope.module, call.name), {}), call.key, scope, by_key):
                inner = (*scope.module, Step(call.name, key))
                outputs = _mapping(self._configured(inner).get("outputs"))
                expression = _mapping(outputs.get(output)).get("expression")
                yield from self._found(_names(expression), _Scope(inner), depth + 1, by_key=False)
        else:
            is_data = head == "data"
            kind, named = steps[is_data].name, steps[1 + is_data] if len(steps) > 1 + is_data else Step("", None)
            instances = self._instances.get((scope.module, is_data, kind, named.name), {})
            yield from (instances[key] for key in _meant(instances, named.key, scope, by_key))

    def _of_variable(self, name: str, variable: str, scope: _Scope, depth: int) -> Iterator[Resource]:
        if not scope.module:  # the root's are known, so nothing that is not known comes from there
            self._refuse_known(name, True)
            return
        outer, step = scope.module[:-1], scope.module[-1]
        block = self._call(self._configured(outer), step.name)
        expressions = _mapping(block.get("expressions"))
        if variable in expressions:
            self._refuse_known(name, _mapping(expressions[variable]).get("constant_value"))
        else:
            declared = _mapping(self._configured(scope.module).get("variables")).get(variable)
            self._refuse_known(name, _mapping(declared).get("default"))
        within = _Scope(outer, step.key, _names(block.get("for_each_expression")))
        yield from self._found(_names(expressions.get(variable)), within, depth + 1, by_key=False)

    def _refuse_known(self, name: str, value: Any) -> None:
        """Of a list of which nothing is known, what is known of its parts would be lost."""
        if self._is_all and value not in (None, "", [], {}, False):
            raise Unresolved(f"it refers to {show(name)} too, and which values it takes from there is not shown")

    def _of_local(self, name: str, scope: _Scope, depth: int) -> Resource:
        """What a local value is, where it can be but one thing.

        It is made of what its module sees: its resources and those of the modules it calls, and its variables. Of these
        one that has no id yet must be meant, for the value is not known.
        """
        seen = {each.address: each for each in self._unmade.get(scope.module, ()) if each.type in self._wanted}
        if scope.module:
            outer, step = scope.module[:-1], scope.module[-1]
            for expression in _mapping(self._call(self._configured(outer), step.name).get("expressions")).values():
                names = [each for each in _names(expression) if not each.startswith("local.")]
                for source in self._found(names, _Scope(outer, step.key), depth + 1, by_key=False):
                    if source.type in self._wanted and not source.values.get("id"):
                        seen[source.address] = source
        if len(seen) != 1 or self._is_all:
            raise Unresolved(f"it refers to {show(name)}, whose value a plan does not show")
        return next(iter(seen.values()))


def _meant(there: Mapping[Key, object], named: Key, scope: _Scope, by_key: bool) -> list[Key]:
    """The keys of those of several that are meant: the named one, the one with the scope's own key, else all."""
    if named is not None:
        return [named] if named in there else []
    if by_key and there.keys() != {None}:
        return [scope.key] if scope.key in there else []
    return [*there]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def at(values: Any, path: str) -> Any:
    """What stands at ``attribute`` or ``block.N.attribute``; true where what holds it is but true."""
    for part in path.split("."):
        if values is True:
            return True
        if isinstance(values, list):
            values = values[int(part)] if part.isdigit() and int(part) < len(values) else None
        else:
            values = _mapping(values).get(part)
    return values


def _names(expression: Any) -> list[str]:
    names = _mapping(expression).get("references")
    return [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []


def _longest(names: Sequence[str]) -> list[str]:
    """Without what is there only because a longer name begins with it: ``a.b.c``, then ``a.b``."""
    whole: list[str] = []
    for name in names:
        if not (whole and whole[-1].startswith((name + ".", name + "["))):
            whole.append(name)
    return list(dict.fromkeys(whole))
