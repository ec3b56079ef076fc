"""Compute the values in a CloudFormation template: ``Ref``, ``Fn::Sub``, ``Fn::If``, conditions, mappings.

A value that the template does not contain (a parameter without a default, an attribute that only the cloud knows)
becomes an ``Unknown``. An ``Unknown`` is an error only if its value is needed. Where an id is needed, the unknown value
gets a made-up id, because an id only has to be unique.

A function may use its argument many times and may lead to other functions, so values can grow exponentially. Therefore
all computing for an import is counted in steps, and ``MAX_STEPS`` limits them (SPEC 11.1).
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import islice
from typing import Any, NamedTuple

from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location, one_line
from sgfast.clouds.importing.sources import Source
from sgfast.policy.yaml_nodes import show, shown_origin

#: The limit for the values computed and the characters produced for one import.
MAX_STEPS = 10_000_000
#: The limit for the nesting of functions and references. A JSON document is at most 50 levels deep.
MAX_DEPTH = 100

#: The advice in messages about a template that only CloudFormation can process.
PROCESSED = "import the output of aws cloudformation get-template --template-stage Processed instead"
_CHARACTERS_A_STEP = 100
_MOST_BLOCKS = 256
_PLACEHOLDER = re.compile(r"\$\{([^${}]*)\}")
_DYNAMIC = "{{resolve:"

#: Attributes (of Fn::GetAtt) that can be computed. The value is the resource's own id (""), or the named property.
_ATTRIBUTES: dict[str, dict[str, str]] = {
    "AWS::EC2::Instance": {"InstanceId": "", "PrivateIp": "PrivateIpAddress"},
    "AWS::EC2::LaunchTemplate": {"LaunchTemplateId": ""},
    "AWS::EC2::NetworkInterface": {"Id": "", "PrimaryPrivateIpAddress": "PrivateIpAddress"},
    "AWS::EC2::PrefixList": {"PrefixListId": ""},
    "AWS::EC2::SecurityGroup": {"GroupId": "", "Id": "", "VpcId": "VpcId"},
    "AWS::EC2::Subnet": {"SubnetId": "", "VpcId": "VpcId", "CidrBlock": "CidrBlock"},
    "AWS::EC2::VPC": {"VpcId": "", "CidrBlock": "CidrBlock"},
    "AWS::RDS::DBInstance": {"Endpoint.Port": "Port"},
}
#: The default port of a database instance by its engine, from the reference of RDS.
_DATABASE_PORTS = {"mariadb": 3306, "mysql": 3306, "postgres": 5432} | {
    f"{engine}-{edition}": port
    for engine, port, editions in (
        ("db2", 50000, ("ae", "se")),
        ("oracle", 1521, ("ee", "ee-cdb", "se2", "se2-cdb")),
        ("sqlserver", 1433, ("ee", "ex", "se", "web")),
    )
    for edition in editions
}


class Unknown(NamedTuple):
    """A value that the template does not contain."""

    #: The reason why the value is unknown, for messages.
    why: str
    #: The made-up id to use where the value is an id, such as the parameter's name; "" if there is none.
    id: str = ""
    #: The name under which a parameter file can supply the value, or "".
    name: str = ""


class TemplateResource(NamedTuple):
    type: str
    properties: object
    #: The name of the resource's condition, or "".
    condition: str


class _Import:
    """State that the templates of one import share."""

    def __init__(self, given: Mapping[str, str]) -> None:
        #: Given values by name: of parameters, attributes, exports and other references.
        self.given = given
        self.steps_left = MAX_STEPS
        #: By name of an export: its template and its value, not computed yet.
        self.exports: dict[str, tuple[Template, object]] = {}
        #: The logical ids that occur in several templates.
        self.ambiguous: frozenset[str] = frozenset()


#: The value of AWS::NoValue. A property or list item with this value is left out.
_NO_VALUE = object()


class _Invalid(Exception):
    """The error for an invalid argument of a template's function. The exception's argument is the reason."""


class Template:
    """One template. Its methods raise PolicyError only if the template is malformed or exceeds a limit."""

    def __init__(self, source: Source, whole: _Import) -> None:
        self.source = source
        self.file = source.file
        self._whole = whole
        self._place = Location(source.file, "template", "")
        document = JsonObject(source.value, self._place)
        self.transforms = _transforms(document.get("Transform"))
        self._parameters = document.mapping("Parameters")
        self._mappings = document.mapping("Mappings")
        self._conditions = document.mapping("Conditions")
        self._decided: dict[str, bool | Unknown] = {}
        self._parameter_values: dict[str, object] = {}
        self._outputs = document.mapping("Outputs")
        if not document.has("Resources"):
            raise self._place.error("has no Resources")
        self.resources: dict[str, TemplateResource] = {}
        for logical, raw in document.mapping("Resources").items():
            location = Location(source.file, "resource", logical)
            if logical.startswith("Fn::"):
                raise location.error(f"stands for resources that the template does not list: {PROCESSED}")
            fields = JsonObject(raw, location)
            kind, condition = fields.required("Type"), fields.text("Condition")
            self.resources[logical] = TemplateResource(kind, fields.get("Properties"), condition)

    def identity(self, logical: str) -> str:
        """Return the id that a resource has in the draft: its logical id, with the file's name if it is ambiguous."""
        return f"{self.file}:{logical}" if logical in self._whole.ambiguous else logical

    def exports(self) -> Iterator[tuple[str, object]]:
        """Yield the exports whose names are known: name, and value, which is not computed yet."""
        for key, raw in self._outputs.items():
            output = JsonObject(raw, Location(self.file, "output", key))
            name = self._value(output.mapping("Export").get("Name"), 0)
            if isinstance(name, str) and self.holds(output.text("Condition")) is not False:
                yield name, output.get("Value")

    def holds(self, condition: str) -> bool | Unknown:
        """Return whether a named condition is true. The empty name means that there is no condition."""
        return self._condition_named(condition, 0) if condition else True

    def properties(self, resource: TemplateResource, location: Location) -> object:
        """Compute the properties of a resource. ``location``: the resource's name in messages."""
        self._place = location
        evaluated = self._value(resource.properties, 0)
        return {} if evaluated is _NO_VALUE or evaluated is None else evaluated

    # Values

    def _spend(self, steps: int) -> None:
        self._whole.steps_left -= steps
        if self._whole.steps_left < 0:
            raise self._place.error(
                f"its functions compute more than {MAX_STEPS:,} values and characters: import a smaller template"
            )

    def _value(self, raw: object, depth: int) -> object:
        self._spend(1)
        if depth > MAX_DEPTH:
            raise self._place.error(f"its functions refer to each other more than {MAX_DEPTH} levels deep")
        if isinstance(raw, list):
            return [item for raw_item in raw if (item := self._value(raw_item, depth + 1)) is not _NO_VALUE]
        if isinstance(raw, dict):
            name = next(iter(raw), "") if len(raw) == 1 else "Fn::Transform" if "Fn::Transform" in raw else ""
            if name == "Ref" or name.startswith("Fn::"):
                return self._called(name, raw[name], depth + 1)
            evaluated = {key: self._value(raw_item, depth + 1) for key, raw_item in raw.items()}
            return {key: item for key, item in evaluated.items() if item is not _NO_VALUE}
        self._spend(_cost(raw))
        if isinstance(raw, str) and _DYNAMIC in raw:
            return self._unknown(raw, f"{show(raw)} is looked up when the stack is made")
        return raw

    def _called(self, name: str, argument: object, depth: int) -> object:
        """Compute the value of a function."""
        if name == "Fn::If":
            return self._if(argument, depth)
        evaluate = _FUNCTIONS.get(name)
        if evaluate is None:
            return Unknown(f"{name} is computed by CloudFormation alone: {PROCESSED}")
        evaluated = self._value(argument, depth)
        self._spend(_cost(evaluated))
        try:
            return evaluate(self, evaluated, depth)
        except _Invalid as why:
            return Unknown(f"{name} {why}")

    def _unknown(self, name: str, why: str) -> object:
        """Return the value that a parameter file gives for this name, else ``Unknown``."""
        return self._whole.given.get(name, Unknown(why, name, name))

    # References

    def _ref(self, name: object, depth: int) -> object:
        if not isinstance(name, str):
            raise _Invalid(f"must name a parameter or a resource, not {_shown(name)}")
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self._parameters:
            if name not in self._parameter_values:
                self._parameter_values[name] = self._parameter(name)
            return self._parameter_values[name]
        if name in self.resources:
            if self.resources[name].type.startswith("AWS::EC2::") and self.resources[name].type in _ATTRIBUTES:
                return self.identity(name)
            return self._unknown(name, f"only the cloud knows the id of the resource {show(name)}")
        if name.startswith("AWS::"):
            return self._unknown(name, f"{name} is known only when the stack is made")
        raise _Invalid(f"names {show(name)}, which is no parameter and no resource")

    def _parameter(self, name: str) -> object:
        declared = self._parameters[name] if isinstance(self._parameters[name], dict) else {}
        kind = str(declared.get("Type"))
        value: object = self._whole.given.get(name)
        if value is None and kind.startswith("AWS::SSM::"):
            return Unknown(f"the parameter {show(name)} is looked up in the Parameter Store", name, name)
        if value is None:
            value = declared.get("Default")
        if isinstance(value, str) and _DYNAMIC in value:
            return self._value(value, 0)
        if value is None:
            return Unknown(f"the parameter {show(name)} has no default", name, name)
        text = _text(value)
        return self._separated(text) if kind == "CommaDelimitedList" or "List<" in kind else text

    def _separated(self, text: str) -> list[str]:
        self._spend(len(text))
        return [part.strip() for part in text.split(",") if part.strip()]

    def _attribute(self, argument: object, depth: int) -> object:
        logical, attribute = _resource_and_attribute(argument)
        resource = self.resources.get(logical)
        if resource is None:
            raise _Invalid(f"names {show(logical)}, which is no resource")
        name = f"{logical}.{attribute}"
        property_name = _ATTRIBUTES.get(resource.type, {}).get(attribute)
        if property_name == "":
            return self.identity(logical)
        if property_name is not None and isinstance(resource.properties, dict) and name not in self._whole.given:
            value = self._value(resource.properties.get(property_name), depth + 1)
            if value is None and property_name == "PrivateIpAddress":
                value = self._primary_address(resource.properties, depth + 1)
            if value is None and property_name == "Port":
                value = _DATABASE_PORTS.get(_text(self._value(resource.properties.get("Engine", ""), depth + 1)))
            if value is not None and value is not _NO_VALUE:
                return value
        unknown = self._unknown(name, f"only the cloud knows the attribute {show(name)}")
        return unknown._replace(id=f"{self.identity(logical)}.{attribute}") if isinstance(unknown, Unknown) else unknown

    def _primary_address(self, properties: Mapping[str, object], depth: int) -> object:
        """Return the address of an instance's first interface, or the primary address of an interface, or None."""
        for key in ("NetworkInterfaces", "PrivateIpAddresses"):
            items = self._value(properties.get(key), depth)
            for item in items if isinstance(items, list) else ():
                is_first = isinstance(item, dict) and str(item.get("DeviceIndex", 0)) == "0"
                if is_first and str(item.get("Primary", True)).lower() == "true":
                    return item.get("PrivateIpAddress")
        return None

    def _import(self, name: object, depth: int) -> object:
        text = name.id if isinstance(name, Unknown) else name
        if not isinstance(text, str):
            raise _Invalid(f"must name an export, not {_shown(name)}")
        if text in self._whole.exports:
            template, value = self._whole.exports[text]
            return template._value(value, depth + 1)
        return self._unknown(text, f"the export {show(text)} belongs to another stack")

    # Texts and lists

    def _sub(self, argument: object, depth: int) -> object:
        text: object = argument
        values: dict[str, object] = {}
        if isinstance(argument, list) and len(argument) == 2 and isinstance(argument[1], dict):
            text, values = argument
        if isinstance(text, Unknown):
            return text
        if not isinstance(text, str):
            raise _Invalid(f"must be a text, or a list of a text and a mapping, not {_shown(argument)}")
        self._spend(len(text))
        pieces: list[object] = []
        at = 0
        for match in _PLACEHOLDER.finditer(text):
            pieces.append(text[at : match.start()])
            at = match.end()
            name = match[1].strip()
            if name.startswith("!"):
                pieces.append("${" + name[1:] + "}")
            elif name in values:
                pieces.append(values[name])
            else:
                pieces.append(self._attribute(name, depth) if "." in name else self._ref(name, depth))
        pieces.append(text[at:])
        return self._joined("", [piece for piece in pieces if piece != ""])

    def _join(self, argument: object, depth: int) -> object:
        separator, parts = _arguments(argument, 2)
        if isinstance(parts, Unknown):
            return parts
        if not isinstance(separator, str) or not isinstance(parts, list):
            raise _Invalid("takes a separator and a list")
        return self._joined(separator, parts)

    def _joined(self, separator: str, parts: list[object]) -> object:
        """Join parts into one text. If a part is unknown, the text is unknown, with the ids of unknown parts in its id.
        """
        unknown = next((part for part in parts if isinstance(part, Unknown)), None)
        if unknown is not None and (len(parts) == 1 or not unknown.id):
            return unknown
        texts = ["${" + part.id + "}" if isinstance(part, Unknown) else _text(part) for part in parts]
        self._spend(sum(map(len, texts)) + len(separator) * len(texts))
        text = separator.join(texts)
        return text if unknown is None else unknown._replace(id=text)

    def _split(self, argument: object, depth: int) -> object:
        separator, text = _arguments(argument, 2)
        if isinstance(text, Unknown):
            return text
        if not isinstance(separator, str) or not separator or not isinstance(text, str):
            raise _Invalid("takes a separator and a text")
        self._spend(len(text))
        return text.split(separator)

    def _select(self, argument: object, depth: int) -> object:
        index, values = _arguments(argument, 2)
        if isinstance(index, Unknown):
            return index
        number = _number(index)
        if isinstance(values, Unknown):
            return values._replace(id=f"{values.id}[{number}]") if values.id else values
        if isinstance(values, str):  # A parameter file gives the value of a list attribute as a text.
            values = self._separated(values)
        if not isinstance(values, list) or not 0 <= number < len(values):
            raise _Invalid(f"takes the item {number} of {_shown(values)}, which has none")
        return values[number]

    def _cidr(self, argument: object, depth: int) -> object:
        arguments = argument if isinstance(argument, list) and len(argument) == 3 else [*_arguments(argument, 2), 8]
        for part in arguments:
            if isinstance(part, Unknown):
                return part
        count, bits = _number(arguments[1]), _number(arguments[2])
        try:
            block = ip_network(_text(arguments[0]), strict=False)
            blocks = block.subnets(new_prefix=block.max_prefixlen - bits)
            cidrs = [str(cidr) for cidr in islice(blocks, min(count, _MOST_BLOCKS))]
        except ValueError:
            cidrs = []
        self._spend(len(cidrs))
        if not 1 <= count <= _MOST_BLOCKS or len(cidrs) < count:
            raise _Invalid(f"cannot take {count} blocks of {bits} bits from {_shown(arguments[0])}")
        return cidrs

    def _base64(self, argument: object, depth: int) -> object:
        if isinstance(argument, Unknown):
            return argument._replace(id="")
        text = _text(argument)
        self._spend(2 * len(text))
        return base64.b64encode(text.encode("utf-8", "replace")).decode()

    def _zones(self, argument: object, depth: int) -> object:
        return Unknown("only the cloud knows the availability zones", "AvailabilityZones")

    def _find(self, argument: object, depth: int) -> object:
        names, *fallback = [argument[:3], *argument[3:]] if isinstance(argument, list) else [[]]
        for unknown in names:
            if isinstance(unknown, Unknown):
                parts = [name.id if isinstance(name, Unknown) else _text(name) for name in names]
                return unknown._replace(id=".".join(parts))
        section: object = self._mappings
        for name in map(_text, _arguments(names, 3)):
            section = section.get(name) if isinstance(section, dict) else None
        if section is None and len(fallback) == 1 and isinstance(fallback[0], dict):
            section = fallback[0].get("DefaultValue")
        if section is None:
            raise _Invalid(f"finds nothing at {' / '.join(one_line(_text(name)) for name in names)}")
        return self._value(section, depth + 1)

    # Conditions

    def _if(self, argument: object, depth: int) -> object:
        name, *branches = argument if isinstance(argument, list) and len(argument) == 3 else [None]
        if not isinstance(name, str):
            return Unknown("Fn::If takes the name of a condition and two values")
        holds = self._condition_named(name, depth)
        if isinstance(holds, Unknown):
            return holds
        return self._value(branches[0 if holds else 1], depth + 1)

    def _condition_named(self, name: str, depth: int) -> bool | Unknown:
        if name not in self._conditions:
            return Unknown(f"there is no condition {show(name)}")
        if name not in self._decided:
            self._decided[name] = Unknown(f"the condition {show(name)} refers to itself")
            holds = self._condition(self._conditions[name], depth + 1)
            if isinstance(holds, Unknown) and not holds.why.startswith("the condition "):
                holds = Unknown(f"the condition {show(name)} cannot be decided: {holds.why}", name=holds.name)
            self._decided[name] = holds
        return self._decided[name]

    def _condition(self, raw: object, depth: int) -> bool | Unknown:
        self._spend(1)
        if depth > MAX_DEPTH:
            raise self._place.error(f"its conditions refer to each other more than {MAX_DEPTH} levels deep")
        name, argument = next(iter(raw.items())) if isinstance(raw, dict) and len(raw) == 1 else ("", None)
        if name == "Condition" and isinstance(argument, str):
            return self._condition_named(argument, depth)
        if name == "Fn::Equals" and isinstance(argument, list) and len(argument) == 2:
            values = [self._value(operand, depth + 1) for operand in argument]
            self._spend(_cost(values))
            for value in values:
                if isinstance(value, Unknown):
                    return value._replace(id="")
            try:
                return values[0] == values[1] or _text(values[0]) == _text(values[1])
            except _Invalid as why:
                return Unknown(f"{name} {why}")
        if name in ("Fn::And", "Fn::Or", "Fn::Not") and isinstance(argument, list) and argument:
            parts = [self._condition(operand, depth + 1) for operand in argument]
            decisive = name == "Fn::Or"
            unknown = next((part for part in parts if isinstance(part, Unknown)), None)
            if name == "Fn::Not":
                return unknown if unknown is not None else not parts[0]
            if decisive in parts:
                return decisive
            return unknown if unknown is not None else not decisive
        return Unknown(f"{_shown(raw)} is no condition")


def templates_of(sources: Sequence[Source], given: Mapping[str, str]) -> list[Template]:
    """Parse the templates of one import, which may use each other's exports. ``given``: values from parameter files."""
    whole = _Import(given)
    templates = [Template(source, whole) for source in sources]
    count = Counter(logical for template in templates for logical in template.resources)
    whole.ambiguous = frozenset(logical for logical, number in count.items() if number > 1)
    for template in templates:
        for name, value in template.exports():
            if name in whole.exports:
                first_file = shown_origin(whole.exports[name][0].file)
                raise template.source.error(f"has the export {show(name)}, as {first_file} does")
            whole.exports[name] = template, value
    return templates


_FUNCTIONS: dict[str, Callable[[Template, Any, int], object]] = {
    "Ref": Template._ref,
    "Fn::Base64": Template._base64,
    "Fn::Cidr": Template._cidr,
    "Fn::FindInMap": Template._find,
    "Fn::GetAtt": Template._attribute,
    "Fn::GetAZs": Template._zones,
    "Fn::ImportValue": Template._import,
    "Fn::Join": Template._join,
    "Fn::Select": Template._select,
    "Fn::Split": Template._split,
    "Fn::Sub": Template._sub,
}


def _transforms(value: object) -> list[str]:
    """Return the names of the macros that transform the whole template."""
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return [str(transform.get("Name")) if isinstance(transform, dict) else str(transform) for transform in listed]


def _arguments(value: object, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise _Invalid(f"takes a list of {count} values, not {_shown(value)}")
    return value


def _cost(value: object) -> int:
    """Return the steps that count for reading a text, or the texts in a list. Producing a text counts for far more."""
    texts = value if isinstance(value, list) else [value]
    return sum(len(text) for item in texts if isinstance(text := _id(item), str)) // _CHARACTERS_A_STEP


def _id(value: object) -> object:
    return value.id if isinstance(value, Unknown) else value


def _resource_and_attribute(argument: object) -> tuple[str, str]:
    if isinstance(argument, str):
        logical, _, attribute = argument.partition(".")
    elif isinstance(argument, list) and len(argument) == 2 and all(isinstance(part, str) for part in argument):
        logical, attribute = argument
    else:
        logical = attribute = ""
    if not logical or not attribute:
        raise _Invalid(f"must name a resource and an attribute, not {_shown(argument)}")
    return logical, attribute


def _number(value: object) -> int:
    text = _text(value)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise _Invalid(f"takes a number, not {_shown(value)}")
    return int(text)


def _text(value: object) -> str:
    """Return a scalar as a text like CloudFormation's."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise _Invalid(f"takes a text, not {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, str):
        return show(value)
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, Unknown) or value is _NO_VALUE:
        return "AWS::NoValue" if value is _NO_VALUE else "an unknown value"
    return one_line(str(value))
