"""Suggest a known word in place of a misspelled one (SPEC 10.26)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from itertools import islice

#: The most names that are compared with a word, and the most characters of the word that are compared.
_CANDIDATES = 10_000
_CHARACTERS = 80
_SUGGESTIONS = 3
#: A path of Windows.
_DRIVE = re.compile(r"[A-Za-z]:\\")
#: The most names that are compared with all unknown words of a document.
_CANDIDATES_FOR_ALL = 20_000
#: The most by which the similarity of further suggestions may be below the first one's. difflib's ratio is 0 to 1.
_MARGIN = 0.05
#: Words that name the same thing, or that users confuse. Their letters are too different for a comparison.
_SYNONYMS = (
    ("neutron", "openstack"),
    ("otc", "opentelekomcloud", "huaweicloud", "huawei"),
    ("aws", "ec2", "amazon"),
    ("terraform", "opentofu", "tofu", "hcl"),
    ("cloudformation", "cfn"),
    ("nftables", "nft", "iptables"),
)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` (did you mean 'x' or 'y'?)`` with at most three of the choices, or nothing."""
    near = [repr(name) for name in _near(word[:_CHARACTERS], list(dict.fromkeys(islice(choices, _CANDIDATES))))]
    if not near:
        return ""
    *first_names, last = near
    return f" (did you mean {', '.join(first_names) + ' or ' if first_names else ''}{last}?)"


def missing_path_hint(path: str) -> str:
    """Return a hint to append to the error about a file that does not exist: how the path may be meant, or ""."""
    if not path:
        return ": the name is empty, perhaps because a variable is not set"
    if os.sep == "/" and _DRIVE.match(path):
        return f": paths are written with / here; WSL has the drive at /mnt/{path[0].lower()}/"
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            names = [os.path.join(folder, entry.name) for entry in islice(entries, _CANDIDATES)]
    except OSError:
        return ""
    return did_you_mean(os.path.join(folder, name), names)


class Suggestions:
    """Suggest words for the unknown words of a document. There may be thousands; only the first get suggestions."""

    def __init__(self) -> None:
        self._candidates_left = _CANDIDATES_FOR_ALL

    def did_you_mean(self, word: str, choices: Iterable[str]) -> str:
        compared = list(islice(choices, self._candidates_left))
        self._candidates_left -= len(compared)
        return did_you_mean(word, compared)


def _near(word: str, choices: Sequence[str]) -> list[str]:
    lower = word.lower()
    same = [name for name in choices if name.lower() == lower]
    same = same or [name for names in _SYNONYMS if lower in names for name in names if name in choices]
    same = same or sorted((name for name in choices if lower and name.lower().startswith(lower)), key=len)
    if same:
        return same[:_SUGGESTIONS]
    from difflib import SequenceMatcher, get_close_matches

    near = get_close_matches(word, choices, n=_SUGGESTIONS)
    ratios = [SequenceMatcher(None, name, word).ratio() for name in near]
    return [name for name, ratio in zip(near, ratios, strict=True) if ratio >= ratios[0] - _MARGIN]
