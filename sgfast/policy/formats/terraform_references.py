"""Which resources a value comes from that Terraform knows only after it has made them.

A plan leaves such a value out. Its ``configuration`` says which names the expression mentions, though not how it puts
them together: ``aws_security_group.web[each.key].id`` is there as ``aws_security_group.web`` and ``each.key``. From
these names, through the variables and outputs of modules, the resource instances are found that the value can come
from. What a plan does not show at all are local values.
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
        root = configuration.get("root_module") if isinstance(configuration, dict) else None
        self._root: Mapping[str, Any] = root if isinstance(root, dict) else {}
        self._instances: dict[tuple[Module, str, str], list[Resource]] = {}
        self._modules: dict[tuple[Module, str], dict[Key, None]] = {}
        self._blocks: dict[int, dict[tuple[str, str], Mapping[str, Any]]] = {}
        for resource in resources:
            if not resource.is_data:
                place = resource.module, resource.type, resource.name
                self._instances.setdefault(place, []).append(resource)
            for depth, step in enumerate(resource.module):
                self._modules.setdefault((resource.module[:depth], step.name), {})[step.key] = None
        self._left = 0

    def sources(self, resource: Resource, attribute: str, wanted: Set[str]) -> list[Resource]:
        """The resource instances of a ``wanted`` type that an attribute's expression mentions, in its order.

        Unresolved says why that cannot be told. ``attribute`` is a top-level one, or ``block.N.attribute``.
        """
        block = self._block(resource)
        names = _names(at(block.get("expressions"), attribute))
        if not names:
            raise Unresolved("the plan's configuration does not show what it refers to")
        self._left = _MOST_NAMES
        found: dict[str, Resource] = {}
        scope = _Scope(resource.module, resource.key, _names(block.get("for_each_expression")))
        for source in self._found(names, scope, 0, by_key=False):
            if source.type in wanted:
                found[source.address] = source
        if not found:
            raise Unresolved(f"it refers to {show(_longest(names)[0])}, which is no resource that could be meant")
        return list(found.values())

    def mentions(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration has an expression for an attribute."""
        return at(self._block(resource).get("expressions"), attribute) not in (None, {}, [])

    def _block(self, resource: Resource) -> Mapping[str, Any]:
        """The resource's block in the configuration."""
        module = self._configured(resource.module)
        blocks = self._blocks.get(id(module))
        if blocks is None:
            blocks = self._blocks[id(module)] = {}
            listed = module.get("resources")
            for each in listed if isinstance(listed, list) else ():
                if isinstance(each, dict) and each.get("mode") != "data":
                    blocks[str(each.get("type")), str(each.get("name"))] = each
        return blocks.get((resource.type, resource.name), {})

    def _configured(self, module: Module) -> Mapping[str, Any]:
        found = self._root
        for step in module:
            found = _mapping(self._call(found, step.name).get("module"))
        return found

    def _call(self, module: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        return _mapping(_mapping(module.get("module_calls")).get(name))

    def _found(self, names: Sequence[str], scope: _Scope, depth: int, *, by_key: bool) -> Iterator[Resource]:
        """Every resource instance the names stand for. ``by_key``: of several, the one with the scope's own key."""
        if depth > _DEEPEST:
            raise Unresolved("its value is handed on through too many modules")
        whole = _longest(names)
        by_key = by_key or any(name in _BY_KEY for name in whole)
        for name in whole:
            self._left -= 1
            if self._left < 0:
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
        if head in _NO_SOURCE or head == "data":
            return
        if len(steps) < 2 or head == "local":
            raise Unresolved(f"it refers to {show(name)}, whose value a plan does not show")
        if head == "each":
            # Its for_each is evaluated where the resource stands, and has the keys the resource has.
            yield from self._found(scope.for_each, scope, depth + 1, by_key=True)
        elif head == "var":
            if not scope.module:
                raise Unresolved(f"it refers to {show(name)}, whose value is known only after the plan was applied")
            outer, step = scope.module[:-1], scope.module[-1]
            block = self._call(self._configured(outer), step.name)
            handed = _names(_mapping(block.get("expressions")).get(steps[1].name))
            within = _Scope(outer, step.key, _names(block.get("for_each_expression")))
            yield from self._found(handed, within, depth + 1, by_key=False)
        elif head == "module":
            if len(steps) < 3:
                raise Unresolved(f"it refers to the whole of {show(name)}: which of its outputs is meant is not shown")
            call, output = steps[1], steps[2].name
            for key in self._keys(list(self._modules.get((scope.module, call.name), ())), call.key, scope, by_key):
                inner = (*scope.module, Step(call.name, key))
                outputs = _mapping(self._configured(inner).get("outputs"))
                expression = _mapping(outputs.get(output)).get("expression")
                yield from self._found(_names(expression), _Scope(inner), depth + 1, by_key=False)
        else:
            instances = self._instances.get((scope.module, head, steps[1].name), [])
            keys = self._keys([each.key for each in instances], steps[1].key, scope, by_key)
            yield from (each for each in instances if each.key in keys)

    @staticmethod
    def _keys(there: list[Key], named: Key, scope: _Scope, by_key: bool) -> list[Key]:
        """Which of several are meant: the named one, the one with the scope's key, else all."""
        if named is not None:
            return [key for key in there if key == named]
        if by_key and there != [None]:
            return [key for key in there if key == scope.key]
        return there


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
