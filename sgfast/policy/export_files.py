"""Find files that may be exports of clouds, by their names and first bytes. ``clouds.importing`` reads the files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn

from sgfast.base.errors import PolicyError
from sgfast.policy.yaml_nodes import shown_origin

#: The treatment of references that no file resolves, in a word: refuse the export, or take nobody to be known.
UnresolvedWord = Literal["error", "empty"]
#: The treatment of references that no file resolves: a word, or the addresses of groups and lists by id, with the word
#: for all others as the value of ``OTHERS``.
Unresolved = UnresolvedWord | Mapping[str, str | Sequence[str]]
OTHERS = "*"

#: The limit for the files in a directory and its subdirectories.
MAX_FILES = 10_000
#: The limit for the directories that are searched.
_MAX_DIRECTORIES = 10_000
_EXTENSIONS = (".json", ".yaml", ".yml", ".ndjson", ".jsonl", ".tfstate")
#: The extensions of Terraform's configurations.
_CONFIGURATIONS = (".tf", ".tofu", ".tf.json", ".tofu.json")
_ZIP = b"PK\x03\x04"
#: The first bytes of the messages that ``terraform plan -json`` prints.
_MESSAGES = b'{"@level":'
#: The first bytes of the output of the script by which GitHub's action setup-terraform replaces ``terraform``.
_WRAPPED = b"[command]"
#: The beginnings of tables that command lines print for people: what prints it, and how it prints JSON.
_TABLES = (
    (re.compile(rb"[A-Z]{4,}\t[^\s:]"), "aws ... --output text", "--output json"),
    (re.compile(rb"-{10,}\r?\n\|"), "aws ... --output table", "--output json"),
    (re.compile(rb"\+-{3,}[-+]*\+\r?\n\|"), "openstack ... list or show", "-f json"),
)


def files_of(path: str | os.PathLike[str]) -> list[str]:
    """Return the file itself, or the files in a directory and its subdirectories that may be exports, in order of their
    names.
    """
    origin = os.fsdecode(path)
    if origin == "-" or not os.path.isdir(origin):
        return [origin]

    def cannot_be_read(error: OSError) -> NoReturn:
        place = origin if error.filename is None else os.fsdecode(error.filename)
        raise PolicyError(f"{shown_origin(place)}: cannot be read: {error.strerror or error}") from None

    paths: list[str] = []
    visited: set[tuple[int, int]] = set()
    for n, (folder, folders, names) in enumerate(os.walk(origin, onerror=cannot_be_read, followlinks=True)):
        # A symbolic link may lead to a directory that contains it, so each directory is read only once.
        try:
            status = os.stat(folder)
        except OSError as error:
            cannot_be_read(error)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        names = sorted(filter(_may_be_export, names))
        # Pipes and devices are left out, because reading them may never end.
        paths += [path for name in names if os.path.isfile(path := os.path.join(folder, name))]
        if len(paths) > MAX_FILES:
            raise PolicyError(f"{shown_origin(origin)}: more than {MAX_FILES:,} files: name a directory with fewer")
        if n >= _MAX_DIRECTORIES:
            message = f"more than {_MAX_DIRECTORIES:,} directories: name one with fewer below it"
            raise PolicyError(f"{shown_origin(origin)}: {message}")
    if not paths:
        message = f"is a directory without files that end in {', '.join(_EXTENSIONS)}"
        raise PolicyError(f"{shown_origin(origin)}: {message}")
    return paths


def _may_be_export(name: str) -> bool:
    return name[0] != "." and name.lower().endswith(_EXTENSIONS) and not name.lower().endswith(_CONFIGURATIONS)


def refuse_terraform_input(data: bytes, origin: str) -> None:
    """Raise PolicyError for a file of Terraform or OpenTofu that is easily taken for the output of ``show -json``."""
    if origin.lower().endswith(_CONFIGURATIONS):
        cause = "is a configuration, which does not say what Terraform makes of it"
        command = "terraform plan -out plan && terraform show -json plan"
    elif data.startswith(_ZIP) and b"tfplan" in data:
        cause, command = "is a plan file, which only Terraform can read", "terraform show -json PLANFILE"
    elif data.startswith(_MESSAGES):
        cause = "has the messages of terraform plan -json, not the plan"
        command = "terraform plan -out plan && terraform show -json plan"
    elif data.startswith(_WRAPPED):
        cause = "does not begin with JSON but with a command: set terraform_wrapper: false for setup-terraform"
        command = "terraform show -json PLANFILE"
    else:
        return
    raise PolicyError(f"{shown_origin(origin)}: {cause}: run {command} > plan.json, and give plan.json")


def refuse_table(data: bytes, origin: str) -> None:
    """Raise PolicyError for the output of a cloud's command line that is made for people."""
    for beginning, command, option in _TABLES:
        if beginning.match(data):
            cause = f"is a table for people, as {command} prints: run the command again with {option}"
            raise PolicyError(f"{shown_origin(origin)}: {cause}")
