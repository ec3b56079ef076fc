"""Find the resources from which a value comes that Terraform knows only after apply.

A plan omits such values. Its ``configuration`` lists the names that an expression mentions, but not how the expression
combines them: ``aws_security_group.web[each.key].id`` appears as ``aws_security_group.web`` and ``each.key``. This
module follows the names through the variables and outputs of modules to the resource instances that can be the source.

A plan does not show everything:

- Local values are missing. A local value is assumed to be the only resource that fits; if several fit, it is an error.
  The same applies to a value that an instance takes from ``for_each`` or from a variable with several values.
- Literals next to names are missing: of ``[aws_security_group.new.id, "sg-0123"]`` only the name is shown.
- ``dynamic`` blocks are missing. They are assumed to mention the same names as other blocks of their name. If there are
  no other blocks, and the number of blocks is unknown, ``dynamic`` blocks look like a block that is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sgfast.policy.yaml_nodes import show

Key = str | int | None
"""The key of a resource instance: the key of ``for_each``, the index of ``count``, or None without either."""

#: The limits for the names examined for one value, and for nesting. A value may pass through many modules.
_MOST_NAMES = 10_000
_DEEPEST = 100
#: The limit for the resources found for all values of a plan together.
_MOST_FOUND = 3_000_000
_NAME = r"[^\W\d][\w-]*"
_KEY = r'\[(?:(?P<number>\d{1,9})|"(?P<text>(?:[^"\\]|\\.)*)")\]'
_STEP = re.compile(rf"(?P<name>{_NAME})(?:{_KEY})?(?:\.|$|(?=\[))")
_EMPTY: tuple[Any, ...] = (None, "", [], {}, 0)
#: The first parts of names that do not refer to values of the plan.
_NO_SOURCE = frozenset(("path", "terraform", "self"))
_BY_KEY = frozenset(("each.key", "count.index"))


class NotShown(Exception):
    """The error that a plan does not show the source of a value. The message is the reason."""


class Step(NamedTuple):
    name: str
    key: Key


Module = tuple[Step, ...]
"""The path of a module instance from the root module."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource instance of a state, or of a plan's result."""

    address: str
    type: str
    name: str
    key: Key
    module: Module
    is_data: bool
    values: Mapping[str, Any] = field(repr=False)
    #: By attribute, what is known only after apply: true for the whole value, or the unknown parts of a nested value.
    unknown: Mapping[str, Any] = field(default_factory=dict, repr=False)


def module_steps(address: str) -> Module:
    """Parse the path of a module, such as ``module.a["x"].module.b``. Raises ValueError if it is not such a path."""
    steps = _steps(address)
    if len(steps) % 2 or any(step != Step("module", None) for step in steps[::2]):
        raise ValueError(address)
    return tuple(steps[1::2])


def _steps(text: str) -> list[Step]:
    """Parse a path such as ``a["b"].c`` into names with their keys. Raises ValueError if it is not such a path."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(text)
        number, key = match["number"], match["text"]
        steps.append(Step(match["name"], int(number) if number else key and re.sub(r"\\(.)", r"\1", key)))
        at = match.end()
        if text[at : at + 1] == "[":  # A second key selects a part of the value, not an instance.
            steps.append(Step("[]", None))
            at = text.find("]", at) + 1 or len(text)
            at += text[at : at + 1] == "."
    return steps


@dataclass(frozen=True, slots=True)
class _Scope:
    """The context of an expression, which determines the meaning of ``var``, ``module`` and ``each`` in it."""

    module: Module
    key: Key = None
    #: The names that ``for_each`` mentions, needed for ``each.value``.
    for_each: Sequence[str] = ()


class References:
    """The resource instances of a plan, which are found by the names that the plan's configuration mentions."""

    def __init__(self, configuration: Any, resources: Sequence[Resource]) -> None:
        self._root = _mapping(_mapping(configuration).get("root_module"))
        self._instances: dict[tuple[Module, bool, str, str], dict[Key, Resource]] = {}
        self._modules: dict[tuple[Module, str], dict[Key, None]] = {}
        self._blocks: dict[tuple[str, ...], dict[tuple[str, str], Mapping[str, Any]]] = {}
        #: By module: the resources in and below it that have no id yet. They are the possible sources of local values.
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
        self._source_types: Set[str] = frozenset()
        self._is_all = False
        #: By resource and attribute: the source that was assumed for a local value or for a value of ``for_each``.
        self.guesses: dict[tuple[str, str], str] = {}

    def sources(
        self, resource: Resource, attribute: str, source_types: Set[str], *, is_all: bool = False
    ) -> list[Resource]:
        """Find the resource instances of the ``source_types`` that an attribute's expression mentions, in its order.

        ``attribute``: a top-level attribute or ``block.N.attribute``. ``is_all``: no part of the value is known, so a
        source that cannot be followed is an error. Raises NotShown if the instances cannot be determined.
        """
        names = _names(self._expression(resource, attribute))
        if not names:
            raise NotShown("the plan's configuration does not show what it refers to")
        mentioned = self._mentioned(resource, names, source_types, is_all=is_all)
        sources = {source.address: source for source, _ in mentioned if source.type in source_types}
        if not sources:
            raise NotShown(f"it refers to {show(_longest(names)[0])}, which is not a resource of a fitting type")
        first = next(iter(sources.values()))
        if any(name.startswith("local.") for name in names) or _is_one_of_several(resource, names, first):
            self.guesses[resource.address, attribute] = first.address
        return list(sources.values())

    def leaves_out(self, resource: Resource, attribute: str) -> bool:
        """Return whether the configuration has the resource, but leaves an attribute out or sets it to null."""
        block = self._block(resource)
        return bool(block) and at(block.get("expressions"), attribute) in (None, {}, [], {"constant_value": None})

    def may_set(self, resource: Resource, attribute: str) -> bool:
        """Return whether the configuration may set an attribute that Terraform knows only after apply.

        If the configuration does not set it, the provider chooses the value. One such case is an attribute that is left
        out, null or empty. The other is an expression that mentions only known values: its result is known, too, and
        must be null. For a resource that is not in the configuration, return True.
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
        """Return the expression of an attribute. None: the attribute is left out. Empty: the plan does not show it."""
        expressions = self._block(resource).get("expressions")
        top, *below = attribute.split(".")
        blocks, values = at(expressions, top), at(resource.values, top)
        if below and not (isinstance(blocks, list) and isinstance(values, list) and len(blocks) == len(values)):
            return {}  # A part of an attribute, or a block where the plan does not show which blocks are dynamic.
        return at(expressions, attribute)

    def _mentioned(
        self, resource: Resource, names: Sequence[str], source_types: Set[str], *, is_all: bool = False
    ) -> Iterator[tuple[Resource, bool]]:
        """Yield all resource instances that an expression mentions, each with whether the mentioned value is known."""
        self._names_left, self._source_types, self._is_all = _MOST_NAMES, source_types, is_all
        scope = _Scope(resource.module, resource.key, _names(self._block(resource).get("for_each_expression")))
        for source in self._found(names, scope, 0, by_key=False):
            self._found_left -= 1
            if self._found_left < 0:
                raise NotShown("the plan's expressions mention too many resources")
            yield source

    def _block(self, resource: Resource) -> Mapping[str, Any]:
        """Return the resource's block in the configuration."""
        path = tuple(step.name for step in resource.module)
        blocks = self._blocks.get(path)
        if blocks is None:
            blocks = self._blocks[path] = {}
            listed = self._configured(resource.module).get("resources")
            for block in listed if isinstance(listed, list) else ():
                if isinstance(block, dict) and block.get("mode") != "data":
                    blocks[str(block.get("type")), str(block.get("name"))] = block
        return blocks.get((resource.type, resource.name), {})

    def _configured(self, module: Module) -> Mapping[str, Any]:
        configured = self._root
        for step in module:
            configured = _mapping(self._call(configured, step.name).get("module"))
        return configured

    @staticmethod
    def _call(module: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        return _mapping(_mapping(module.get("module_calls")).get(name))

    # From names to resources

    def _found(
        self, names: Sequence[str], scope: _Scope, depth: int, *, by_key: bool
    ) -> Iterator[tuple[Resource, bool]]:
        """Yield all resource instances to which names refer, each with whether the named attribute is known.

        ``by_key``: only yield instances with the scope's own key.
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
            # The expression of for_each is evaluated in the resource's scope, and its keys are the resource's keys.
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
            for key in _selected_keys(self._modules.get((scope.module, call.name), {}), call.key, scope, by_key):
                inner = (*scope.module, Step(call.name, key))
                outputs = _mapping(self._configured(inner).get("outputs"))
                expression = _mapping(outputs.get(output)).get("expression")
                yield from self._found(_names(expression), _Scope(inner), depth + 1, by_key=False)
        else:
            is_data = head == "data"
            kind, named = steps[is_data].name, steps[1 + is_data] if len(steps) > 1 + is_data else Step("", None)
            instances = self._instances.get((scope.module, is_data, kind, named.name), {})
            attribute = steps[2 + is_data].name if len(steps) > 2 + is_data else ""
            for key in _selected_keys(instances, named.key, scope, by_key):
                unknown = instances[key].unknown
                yield instances[key], not has_true(unknown.get(attribute) if attribute else unknown)

    def _of_variable(self, name: str, variable: str, scope: _Scope, depth: int) -> Iterator[tuple[Resource, bool]]:
        if not scope.module:  # Variables of the root module are known, so they are no source of unknown values.
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
        """Raise NotShown if the expression of a completely unknown list also has known parts, which would be lost."""
        if self._is_all and value not in (None, "", [], {}, False):
            raise NotShown(f"it also refers to {show(name)}, and the plan does not show which values it takes")

    def _of_local(self, name: str, scope: _Scope, depth: int) -> Resource:
        """Find the resource to which a local value refers. Raises NotShown if several are possible.

        The expression of a local value can mention resources of its module, resources of called modules, and variables.
        The value is not known yet, so its source must be a resource that has no id yet.
        """
        pending = self._pending.get(scope.module, ())
        sources = {source.address: source for source in pending if source.type in self._source_types}
        if scope.module:
            outer, step = scope.module[:-1], scope.module[-1]
            for expression in _mapping(self._call(self._configured(outer), step.name).get("expressions")).values():
                names = [mentioned for mentioned in _names(expression) if not mentioned.startswith("local.")]
                for source, _ in self._found(names, _Scope(outer, step.key), depth + 1, by_key=False):
                    if source.type in self._source_types and not source.values.get("id"):
                        sources[source.address] = source
        if len(sources) != 1 or self._is_all:
            raise NotShown(f"it refers to {show(name)}, whose value a plan does not show")
        return next(iter(sources.values()))


def _selected_keys(instances: Mapping[Key, object], named: Key, scope: _Scope, by_key: bool) -> list[Key]:
    """Select keys of instances: the named key; the scope's own key if ``by_key``; or all."""
    if named is not None:
        return [named] if named in instances else []
    if by_key and instances.keys() != {None}:
        return [scope.key] if scope.key in instances else []
    return [*instances]


def _is_one_of_several(resource: Resource, names: Sequence[str], source: Resource) -> bool:
    """Return whether the source belongs to values for several instances, so that this instance's value may differ."""
    is_keyed = any(name in _BY_KEY or name.startswith("each.") for name in names)
    is_direct = any(name.startswith(f"{source.type}.{source.name}") for name in names)
    return resource.key is not None and source.key != resource.key and is_keyed and not is_direct


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def at(values: Any, path: str) -> Any:
    """Return the value at ``attribute`` or ``block.N.attribute``. If a containing value is True, return True."""
    for part in path.split("."):
        if values is True:
            return True
        if isinstance(values, list):
            values = values[int(part)] if part.isdigit() and int(part) < len(values) else None
        else:
            values = _mapping(values).get(part)
    return values


def has_true(marks: Any) -> bool:
    """Return whether any part of an attribute is marked with True, for example as unknown."""
    unchecked = [marks]
    while unchecked:
        mark = unchecked.pop()
        if mark is True:
            return True
        unchecked += mark.values() if isinstance(mark, dict) else mark if isinstance(mark, list) else ()
    return False


def _names(expression: Any) -> list[str]:
    names = _mapping(expression).get("references")
    return [name for name in names if isinstance(name, str) and name] if isinstance(names, list) else []


def _longest(names: Sequence[str]) -> list[str]:
    """Remove names that are only prefixes of longer names: after ``a.b.c`` the plan also lists ``a.b``."""
    whole: list[str] = []
    for name in names:
        if not (whole and whole[-1].startswith((name + ".", name + "["))):
            whole.append(name)
    return list(dict.fromkeys(whole))
