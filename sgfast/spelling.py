"""Suggest a known word in place of a misspelled one (SPEC 10.26)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

#: The most names that are compared with the word, and the most of its characters.
_CANDIDATES = 10_000
_CHARACTERS = 80
_SUGGESTIONS = 3
#: The most names that are compared with all unknown words of a document.
_CANDIDATES_FOR_ALL = 20_000
#: A second suggestion is almost as near to the word as the first one. The ratio of difflib goes from 0 to 1.
_MARGIN = 0.05
#: Words that name one thing, or that are taken for each other. None of them is near another one by its letters.
_SYNONYMS = (
    ("neutron", "openstack"),
    ("otc", "opentelekomcloud", "huaweicloud", "huawei"),
    ("aws", "ec2", "amazon"),
    ("terraform", "opentofu", "tofu", "hcl"),
    ("cloudformation", "cfn"),
    ("nftables", "nft", "iptables"),
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x' or 'y'?)`` with at most three of the known words, or nothing."""
    near = [repr(name) for name in _near(word[:_CHARACTERS], list(dict.fromkeys(islice(known, _CANDIDATES))))]
    if not near:
        return ""
    *others, last = near
    return f" (did you mean {', '.join(others) + ' or ' if others else ''}{last}?)"


class Suggestions:
    """Suggest for all unknown words of a document, of which there may be thousands. The first ones get suggestions."""

    def __init__(self) -> None:
        self._left = _CANDIDATES_FOR_ALL

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        compared = list(islice(known, self._left))
        self._left -= len(compared)
        return did_you_mean(word, compared)


def _near(word: str, known: Sequence[str]) -> list[str]:
    lower = word.lower()
    same = [name for name in known if name.lower() == lower]
    same = same or [name for names in _SYNONYMS if lower in names for name in names if name in known]
    same = same or sorted((name for name in known if lower and name.lower().startswith(lower)), key=len)
    if same:
        return same[:_SUGGESTIONS]
    from difflib import SequenceMatcher, get_close_matches

    near = get_close_matches(word, known, n=_SUGGESTIONS)
    ratios = [SequenceMatcher(None, name, word).ratio() for name in near]
    return [name for name, ratio in zip(near, ratios, strict=True) if ratio >= ratios[0] - _MARGIN]
