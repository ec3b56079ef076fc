"""The objects of an AWS account's export by section, whichever file they are in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from sgfast.importing.aws_output_formats import SECTIONS, documents
from sgfast.importing.fields import JsonObject
from sgfast.importing.object_location import Location
from sgfast.importing.sources import Source


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
                ids = set(re.findall(rf"{prefix}-[0-9a-f]{{8,17}}(?![0-9a-f])", PurePath(document.location.file).name))
                owner = document.text(key) or ("".join(ids) if len(ids) == 1 else "")
                if owner:
                    yield owner, document
                elif any(item.has(mark) for item in document.objects(section)):
                    owner_kind = re.sub("(?<=[a-z])(?=[A-Z])", " ", key.removesuffix("Id")).lower()
                    message = f'do not name their {owner_kind}: name the file after it, "{prefix}-….json"'
                    raise document.error(section, message)


def name_tag(item: JsonObject) -> str:
    """Return the value of an object's Name tag, or "" if it has none."""
    for section in ("Tags", "TagSet"):
        for tag in item.objects(section):
            if tag.text("Key") == "Name":
                return tag.text("Value")
    return ""
