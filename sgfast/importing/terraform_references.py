"""Find the resources that a value comes from if Terraform knows it only after apply.

A plan omits such values. Its ``configuration`` lists the names an expression mentions, but not how it combines them:
``aws_security_group.web[each.key].id`` appears as ``aws_security_group.web`` and ``each.key``. From these names,
through the variables and outputs of modules, this module finds the resource instances the value can come from.

A plan does not show local values at all: a local value is taken to be the only resource that fits, or is an error. So
is the value of an instance among those that ``for_each`` or a variable holds. Nor does it show literals next to names:
for ``[aws_security_group.new.id, "sg-0123"]`` it shows only the former. Nor does it show ``dynamic`` blocks: what other
blocks of the same name mention is taken for all of them. If there are no others, and it is unknown how many blocks
there will be, they look like a block that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sgfast.policy.yaml_nodes import show

Key = str | int | None
"""Key of one instance of several: the key of ``for_each`` or the index of ``count``; None if there is only one."""

#: Limits on the names examined for one value and on nesting. Modules may pass a value on many times.
_MOST_NAMES = 10_000
_DEEPEST = 100
#: The most resources found for all values of a plan together.
_MOST_FOUND = 3_000_000
_NAME = r"[^\W\d][\w-]*"
_KEY = r'\[(?:(?P<number>\d{1,9})|"(?P<text>(?:[^"\\]|\\.)*)")\]'
_STEP = re.compile(rf"(?P<name>{_NAME})(?:{_KEY})?(?:\.|$|(?=\[))")
_EMPTY: tuple[Any, ...] = (None, "", [], {}, 0)
#: Names in an expression that do not refer to values of the plan.
_NO_SOURCE = frozenset(("path", "terraform", "self"))
_BY_KEY = frozenset(("each.key", "count.index"))


class NotShown(Exception):
    """The resources cannot be determined; the message says why."""


class Step(NamedTuple):
    name: str
    key: Key


Module = tuple[Step, ...]
"""The path of a module instance from the root module."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource instance of a state, or of a plan's result."""

    address: str
    type: str
    name: str
    key: Key
    module: Module
    is_data: bool
    values: Mapping[str, Any] = field(repr=False)
    #: Values known only after apply, by attribute: true, or the parts of a nested value.
    unknown: Mapping[str, Any] = field(default_factory=dict, repr=False)


def module_steps(address: str) -> Module:
    """The steps of a path like ``module.a["x"].module.b``. Raises ValueError if it is not one."""
    steps = _steps(address)
    if len(steps) % 2 or any(step != Step("module", None) for step in steps[::2]):
        raise ValueError(address)
    return tuple(steps[1::2])


def _steps(text: str) -> list[Step]:
    """The names in a path like ``a["b"].c``, each with the key after it. Raises ValueError if it is not one."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(text)
        number, key = match["number"], match["text"]
        steps.append(Step(match["name"], int(number) if number else key and re.sub(r"\\(.)", r"\1", key)))
        at = match.end()
        if text[at : at + 1] == "[":  # a second key belongs to something within the value
            steps.append(Step("[]", None))
            at = text.find("]", at) + 1 or len(text)
            at += text[at : at + 1] == "."
    return steps


@dataclass(frozen=True, slots=True)
class _Scope:
    """The context of an expression: what ``var``, ``module`` and ``each`` refer to in it."""

    module: Module
    key: Key = None
    #: The names that ``for_each`` mentions, needed for ``each.value``.
    for_each: Sequence[str] = ()


class References:
    """Find resource instances by the names that a plan's configuration mentions."""

    def __init__(self, configuration: Any, resources: Sequence[Resource]) -> None:
        self._root = _mapping(_mapping(configuration).get("root_module"))
        self._instances: dict[tuple[Module, bool, str, str], dict[Key, Resource]] = {}
        self._modules: dict[tuple[Module, str], dict[Key, None]] = {}
        self._blocks: dict[tuple[str, ...], dict[tuple[str, str], Mapping[str, Any]]] = {}
        #: Resources without an id yet, in and below each module: what its local values can come from.
        self._pending: dict[Module, list[Resource]] = {}
        for resource in resources:
            block = resource.module, resource.is_data, resource.type, resource.name
            self._instances.setdefault(block, {})[resource.key] = resource
            pending = not resource.is_data and not resource.values.get("id")
            for depth, step in enumerate(resource.module):
                self._modules.setdefault((resource.module[:depth], step.name), {})[step.key] = None
            for depth in range(len(resource.module) + 1 if pending else 0):
                self._pending.setdefault(resource.module[:depth], []).append(resource)
        self._names_left = 0
        self._found_left = _MOST_FOUND
        self._wanted: Set[str] = frozenset()
        self._is_all = False
        #: Resources assumed to be what a local value or a value of ``for_each`` refers to, by resource and attribute.
        self.guesses: dict[tuple[str, str], str] = {}

    def sources(self, resource: Resource, attribute: str, wanted: Set[str], *, is_all: bool = False) -> list[Resource]:
        """The resource instances of a ``wanted`` type that an attribute's expression mentions, in that order.

        Raises NotShown if they cannot be determined. ``attribute`` is a top-level attribute or ``block.N.attribute``.
        ``is_all`` means that no part of the value is known, so a source that cannot be followed is an error.
        """
        names = _names(self._expression(resource, attribute))
        if not names:
            raise NotShown("the plan's configuration does not show what it refers to")
        mentioned = self._mentioned(resource, names, wanted, is_all=is_all)
        found = {source.address: source for source, _ in mentioned if source.type in wanted}
        if not found:
            raise NotShown(f"it refers to {show(_longest(names)[0])}, which is not a resource of a fitting type")
        first = next(iter(found.values()))
        if any(name.startswith("local.") for name in names) or _is_one_of_several(resource, names, first):
            self.guesses[resource.address, attribute] = first.address
        return list(found.values())

    def leaves_out(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration has the resource but no expression, or null, for an attribute."""
        block = self._block(resource)
        return bool(block) and at(block.get("expressions"), attribute) in (None, {}, [], {"constant_value": None})

    def may_set(self, resource: Resource, attribute: str) -> bool:
        """Whether the configuration may set an attribute that Terraform knows only after apply.

        If it does not, the provider chooses the value. This is so where the attribute is left out, null or empty, and
        where all that its expression mentions is known: then the result is known, too, and must be null. A resource
        that is not in the configuration may have set everything.
        """
        if not self._block(resource):
            return True
        expression = self._expression(resource, attribute)
        names = _names(expression)
        if not names:
            return expression is not None and _mapping(expression).get("constant_value", True) not in _EMPTY
        try:
            return any(not is_known for _, is_known in self._mentioned(resource, names, frozenset()))
        except NotShown:
            return True

    def _expression(self, resource: Resource, attribute: str) -> Any:
        """The expression of an attribute: None if it is left out, empty if the configuration does not show it."""
        expressions = self._block(resource).get("expressions")
        top, *below = attribute.split(".")
        blocks, values = at(expressions, top), at(resource.values, top)
        if below and not (isinstance(blocks, list) and isinstance(values, list) and len(blocks) == len(values)):
            return {}  # a part of an attribute; or a block, where it is not known which blocks are dynamic
        return at(expressions, attribute)

    def _mentioned(
        self, resource: Resource, names: Sequence[str], wanted: Set[str], *, is_all: bool = False
    ) -> Iterator[tuple[Resource, bool]]:
        """All resource instances that an expression of a resource mentions, and whether what it mentions is known."""
        self._names_left, self._wanted, self._is_all = _MOST_NAMES, wanted, is_all
        scope = _Scope(resource.module, resource.key, _names(self._block(resource).get("for_each_expression")))
        for found in self._found(names, scope, 0, by_key=False):
            self._found_left -= 1
            if self._found_left < 0:
                raise NotShown("the plan's expressions mention too many resources")
            yield found

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

    # From names to resources

    def _found(
        self, names: Sequence[str], scope: _Scope, depth: int, *, by_key: bool
    ) -> Iterator[tuple[Resource, bool]]:
        """All resource instances the names refer to, and whether the attribute that is named is known.

        ``by_key`` selects the instance with the scope's own key.
        """
        if depth > _DEEPEST:
            raise NotShown("its value is passed through too many modules")
        whole = _longest(names)
        by_key = by_key or any(name in _BY_KEY for name in whole)
        for name in whole:
            self._names_left -= 1
            if self._names_left < 0:
                raise NotShown("its expression mentions too many names")
            if name in _BY_KEY:
                continue
            try:
                steps = _steps(name)
            except ValueError:
                raise NotShown(f"it refers to {show(name)}, which cannot be parsed") from None
            yield from self._of_name(name, steps, scope, depth, by_key)

    def _of_name(
        self, name: str, steps: list[Step], scope: _Scope, depth: int, by_key: bool
    ) -> Iterator[tuple[Resource, bool]]:
        head = steps[0].name
        if head in _NO_SOURCE:
            return
        if len(steps) < 2:
            raise NotShown(f"it refers to {show(name)}, whose value a plan does not show")
        if head == "each":
            # Its for_each is evaluated in the resource's scope and has the resource's keys.
            self._reject_known(name, not scope.for_each)
            yield from self._found(scope.for_each, scope, depth + 1, by_key=True)
        elif head == "local":
            yield self._of_local(name, scope, depth), False
        elif head == "var":
            yield from self._of_variable(name, steps[1].name, scope, depth)
        elif head == "module":
            if len(steps) < 3:
                raise NotShown(f"it refers to the whole of {show(name)}, and the plan does not show to which output")
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
            attribute = steps[2 + is_data].name if len(steps) > 2 + is_data else ""
            for key in _meant(instances, named.key, scope, by_key):
                unknown = instances[key].unknown
                yield instances[key], not has_true(unknown.get(attribute) if attribute else unknown)

    def _of_variable(self, name: str, variable: str, scope: _Scope, depth: int) -> Iterator[tuple[Resource, bool]]:
        if not scope.module:  # variables of the root module are known, so no unknown value comes from there
            self._reject_known(name, True)
            return
        outer, step = scope.module[:-1], scope.module[-1]
        block = self._call(self._configured(outer), step.name)
        expressions = _mapping(block.get("expressions"))
        if variable in expressions:
            self._reject_known(name, _mapping(expressions[variable]).get("constant_value"))
        else:
            declared = _mapping(self._configured(scope.module).get("variables")).get(variable)
            self._reject_known(name, _mapping(declared).get("default"))
        within = _Scope(outer, step.key, _names(block.get("for_each_expression")))
        yield from self._found(_names(expressions.get(variable)), within, depth + 1, by_key=False)

    def _reject_known(self, name: str, value: Any) -> None:
        """Raise NotShown if a completely unknown list also has known parts, which would be lost."""
        if self._is_all and value not in (None, "", [], {}, False):
            raise NotShown(f"it also refers to {show(name)}, and the plan does not show which values it takes")

    def _of_local(self, name: str, scope: _Scope, depth: int) -> Resource:
        """The resource a local value refers to, if only one is possible.

        A local value is built from what its module can see: its resources, those of the modules it calls, and its
        variables. Because the value is not known yet, it must come from a resource that has no id yet.
        """
        seen = {each.address: each for each in self._pending.get(scope.module, ()) if each.type in self._wanted}
        if scope.module:
            outer, step = scope.module[:-1], scope.module[-1]
            for expression in _mapping(self._call(self._configured(outer), step.name).get("expressions")).values():
                names = [each for each in _names(expression) if not each.startswith("local.")]
                for source, _ in self._found(names, _Scope(outer, step.key), depth + 1, by_key=False):
                    if source.type in self._wanted and not source.values.get("id"):
                        seen[source.address] = source
        if len(seen) != 1 or self._is_all:
            raise NotShown(f"it refers to {show(name)}, whose value a plan does not show")
        return next(iter(seen.values()))


def _meant(there: Mapping[Key, object], named: Key, scope: _Scope, by_key: bool) -> list[Key]:
    """The selected keys of several: the named one, the scope's own key, or all."""
    if named is not None:
        return [named] if named in there else []
    if by_key and there.keys() != {None}:
        return [scope.key] if scope.key in there else []
    return [*there]


def _is_one_of_several(resource: Resource, names: Sequence[str], source: Resource) -> bool:
    """Whether the source comes from values for several instances, of which this instance's may be another or null."""
    is_keyed = any(name in _BY_KEY or name.startswith("each.") for name in names)
    is_direct = any(name.startswith(f"{source.type}.{source.name}") for name in names)
    return resource.key is not None and source.key != resource.key and is_keyed and not is_direct


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def at(values: Any, path: str) -> Any:
    """The value at ``attribute`` or ``block.N.attribute``; true if a containing value is just true."""
    for part in path.split("."):
        if values is True:
            return True
        if isinstance(values, list):
            values = values[int(part)] if part.isdigit() and int(part) < len(values) else None
        else:
            values = _mapping(values).get(part)
    return values


def has_true(marks: Any) -> bool:
    """Whether any part of an attribute is marked, such as unknown."""
    left = [marks]
    while left:
        mark = left.pop()
        if mark is True:
            return True
        left += mark.values() if isinstance(mark, dict) else mark if isinstance(mark, list) else ()
    return False


def _names(expression: Any) -> list[str]:
    names = _mapping(expression).get("references")
    return [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []


def _longest(names: Sequence[str]) -> list[str]:
    """The names without those that are mere prefixes of longer ones: for ``a.b.c`` the plan also lists ``a.b``."""
    whole: list[str] = []
    for name in names:
        if not (whole and whole[-1].startswith((name + ".", name + "["))):
            whole.append(name)
    return list(dict.fromkeys(whole))
