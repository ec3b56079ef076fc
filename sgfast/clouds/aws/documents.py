"""The objects of an AWS account's export by section, whichever file they are in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from sgfast.clouds.aws.output_formats import SECTIONS, documents
from sgfast.clouds.importing.fields import JsonObject
from sgfast.clouds.importing.object_location import Location
from sgfast.clouds.importing.sources import Source


class AwsDocuments:
    """The documents in all files of an export. Raises PolicyError for an incomplete document."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.documents: list[JsonObject] = []
        for source in sources:
            for value in documents(source.value) or (source.value,):
                document = JsonObject(value, source.location("AWS output", ""))
                if document.text("NextToken") and not source.is_continued:
                    message = "is set, so the list is incomplete: export it without --max-items"
                    raise document.error("NextToken", message)
                if document.flag("failed", False):
                    message = "is true, so this result of Ansible is incomplete: run its task again"
                    raise document.error("failed", message)
                self.documents.append(document)
        if not any(document.has(section) for document in self.documents for section in SECTIONS):
            message = "has no section that is read, such as SecurityGroups: is it the output of aws ec2 describe-...?"
            raise self.documents[0].location.error(message)

    def items(self, section: str, key: str) -> Iterator[JsonObject]:
        """Yield the objects of a section in all files. ``key``: the field with the id that messages use."""
        for document in self.documents:
            for item in document.objects(section):
                identity = item.required(key) if key else ""
                yield item.at(Location(item.location.file, SECTIONS[section], identity, name_tag(item)))

    def of_owner(self, section: str, key: str, prefix: str, mark: str) -> Iterator[tuple[str, JsonObject]]:
        """Yield the documents with a section whose objects do not name their owner, each with the owner's id.

        The id is next to the section under ``key``, or it is a part of the file's name that begins with ``prefix``. If
        it is missing, only objects with the key ``mark`` are an error. Other objects belong to another command, whose
        section has the same name.
        """
        for document in self.documents:
            if document.has(section):
                owner = document.text(key) or owner_in_name(document.location.file, prefix)
                if owner:
                    yield owner, document
                elif any(item.has(mark) for item in document.objects(section)):
                    owner_kind = re.sub("(?<=[a-z])(?=[A-Z])", " ", key.removesuffix("Id")).lower()
                    message = f'do not name their {owner_kind}: name the file after it, "{prefix}-….json"'
                    raise document.error(section, message)

    def list_entries(self) -> Iterator[tuple[str, JsonObject, list[str]]]:
        """Yield the documents with the entries of a prefix list, each with the list's id and the entries."""
        for list_id, document in self.of_owner("Entries", "PrefixListId", "pl", "Cidr"):
            yield list_id, document, [entry.required("Cidr") for entry in document.objects("Entries")]


def owner_in_name(file: str, prefix: str) -> str:
    """Return the only id in a file's name that begins with ``prefix``, or "" if there is not exactly one."""
    ids = set(re.findall(rf"{prefix}-[0-9a-f]{{8,17}}(?![0-9a-f])", PurePath(file).name))
    return ids.pop() if len(ids) == 1 else ""


def name_tag(item: JsonObject) -> str:
    """Return the value of an object's Name tag, or "" if it has none."""
    for section in ("Tags", "TagSet"):
        for tag in item.objects(section):
            if tag.text("Key") == "Name":
                return tag.text("Value")
    return ""
