"""JSON objects as classes: a class lists an object's fields, the sources of their values, and their JSON Schema (SPEC
10.1).

    class JsonRule(Answer):
        rule: str = at("rule.id")                                  # hits.rule.id
        connections: Count                                         # hits.connections
        bytes: Annotated[Count, "Lengths on the wire."]            # described in the schema
        ended: Annotated[Time | None, "Null: it did not end."]     # or null
        from_: JsonEnd                                             # "from", an object in the object
        cluster: JsonCluster | Absent                              # left out where it would be null

    JsonRule.of(hits, cluster=None)  # {"rule": "web/inbound/1", "connections": 7, ...}

Notes on a type are descriptions (texts), ``Keywords`` of JSON Schema, or conversions of values (functions).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

Schema = dict[str, Any]
Convert = Callable[[Any], Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


class Keywords(Schema):
    """Keywords of JSON Schema as a note on a type. Notes must be hashable for unions of types up to Python 3.13."""

    def __hash__(self) -> int:      # type: ignore[override]
        return hash(frozenset(self))


class Absent:
    """A type in a union that means: the object lacks the field if its value would be null."""


def at(place: str | Convert) -> Any:
    """Take the value of a field from the source's attribute ``place``, not the field's name, or from a function."""
    return attrgetter(place) if isinstance(place, str) else place


class Answer:
    """A JSON object. A field whose name is a keyword of Python has ``_`` behind the name. A class's docstring is the
    description in the schema.
    """

    # The name of the published schema, if the class has one, and the command that prints the object.
    _published = _command = ""

    def __init_subclass__(cls, published: str = "", command: str = "") -> None:
        cls._published, cls._command = published, command or published

    @classmethod
    @cache
    def _fields(cls) -> tuple[_Field, ...]:
        """Return the fields, those of base classes first."""
        hints = get_type_hints(cls, include_extras=True)
        return tuple(
            _Field(
                name, name.rstrip("_"), hint, getattr(cls, name, None) or attrgetter(name), _conversion(hint),
                Absent in _arms(hint)[0],
            )
            for name, hint in hints.items()
        )  # fmt: skip

    @classmethod
    def of(cls, source: Any, **given: Any) -> dict[str, Any]:
        """Return the object for ``source``, whose attributes are the values of the fields that are not ``given``."""
        document = {}
        for field in cls._fields():
            value = given.pop(field.name) if field.name in given else field.take(source)
            if value is not None and field.convert is not None:
                value = field.convert(value)
            if value is not None or not field.may_be_absent:
                document[field.key] = value
        if given:
            raise TypeError(f"{cls.__name__} has no field {', '.join(given)}")
        return document

    @classmethod
    def json_schema(cls) -> Schema:
        """Return the published schema."""
        definitions: dict[str, Schema] = {}
        description = f"What sgfast {cls._command} --format json prints."
        return document(cls._published, description, cls._object_schema(definitions), definitions)

    @classmethod
    def _object_schema(cls, definitions: dict[str, Schema]) -> Schema:
        """Return the schema of the object alone. Schemas of objects within it are added to ``definitions``."""
        fields = cls._fields()
        schema = object_schema(
            {field.key: _schema(field.type, definitions) for field in fields},
            [field.key for field in fields if field.may_be_absent],
        )
        return {"description": cls.__doc__, **schema} if cls.__doc__ else schema


class _Field(NamedTuple):
    name: str
    #: The field's name in JSON.
    key: str
    type: Any
    take: Convert
    #: None: the value needs no conversion.
    convert: Convert | None
    may_be_absent: bool


def _arms(hint: Any) -> tuple[tuple[Any, ...], Sequence[Any]]:
    """Return the types of a union, or the type itself, and the notes on the whole type."""
    notes: Sequence[Any] = ()
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
    return (get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)), notes


def _conversion(hint: Any) -> Convert | None:
    arms, notes = _arms(hint)
    steps = [note for note in notes if callable(note)]
    steps += [step for step in map(_conversion_of_arm, arms) if step is not None]
    if len(steps) < 2:
        return steps[0] if steps else None

    def convert(value: Any) -> Any:
        for step in steps:
            value = None if value is None else step(value)
        return value

    return convert


def _conversion_of_arm(arm: Any) -> Convert | None:
    origin = get_origin(arm)
    if origin is Annotated:
        return _conversion(arm)
    if origin is list:
        convert = _conversion(get_args(arm)[0])
        if convert is None:
            return list
        return lambda values: [None if value is None else convert(value) for value in values]
    if origin is dict:
        return dict
    if isinstance(arm, type) and issubclass(arm, Answer):
        return lambda value: value if isinstance(value, dict) else arm.of(value)
    return None


def _schema(hint: Any, definitions: dict[str, Schema]) -> Schema:
    arms, notes = _arms(hint)
    schemas = [_schema_of_arm(arm, definitions) for arm in arms if arm not in (NoneType, Absent)]
    schema = {"anyOf": schemas} if len(schemas) > 1 else schemas[0] if schemas else {}
    if NoneType in arms:
        schema = or_null(schema)
    for note in notes:
        if isinstance(note, str):
            schema = {**schema, "description": note}
        elif isinstance(note, Keywords):
            schema = {**schema, **note}
    return schema


def _schema_of_arm(arm: Any, definitions: dict[str, Schema]) -> Schema:
    origin, arguments = get_origin(arm), get_args(arm)
    if origin is Annotated:
        return _schema(arm, definitions)
    if origin is Literal:
        return {"enum": [*arguments]}
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if arm is Any:
        return {}
    if not issubclass(arm, Answer):
        return {"type": _TYPES[arm]}
    if arm._published:
        return {"$ref": f"urn:sgfast:schema:{arm._published}"}
    if arm.__name__ not in definitions:
        definitions[arm.__name__] = arm._object_schema(definitions)
    return {"$ref": f"#/$defs/{arm.__name__}"}


def object_schema(properties: dict[str, Schema], optional: Collection[str] = ()) -> Schema:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name in properties if name not in optional],
        "properties": properties,
    }


def or_null(schema: Schema) -> Schema:
    """Return the schema of the same values and null."""
    if not schema:
        return {"type": "null"}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = dict(schema)
    if "enum" in nullable:
        nullable["enum"] = [*nullable["enum"], None]
    if "type" in nullable:
        nullable["type"] = [nullable["type"], "null"]
    return nullable


def json_text(value: dict[str, Any]) -> str:
    """Return an object as ``--format json`` prints it, without the last line break."""
    import json

    return json.dumps(value, indent=2)


def document(name: str, description: str, root: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a schema with the head that published schemas have."""
    head = {"$schema": DIALECT, "$id": f"urn:sgfast:schema:{name}", "title": name, "description": description}
    return {**head, **root, **({"$defs": definitions} if definitions else {})}


def one_of(words: Iterable[str]) -> Keywords:
    """Return keywords for a text that is one of ``words``."""
    return Keywords(enum=[*words])
