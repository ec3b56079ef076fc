"""Evidence: how far the traffic, or whatever an answer rests on, can carry the answer (SPEC 10.27)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from typing import Literal

from sgfast.base.errors import ArgumentError
from sgfast.base.spelling import did_you_mean

#: Whether an answer can be relied on: wholly, in part, or not at all.
Conclusive = Literal["yes", "partly", "no"]

#: Part of an answer that a reason may make uncertain. ``verdicts``: which connections are allowed and denied;
#: ``answers``: whether a connection was answered; ``counts``: numbers of packets, bytes and connections; ``absence``:
#: that something did not occur, such as a packet that uses a rule.
Part = Literal["verdicts", "answers", "counts", "absence"]

#: The code of a reason to doubt an answer.
EvidenceCode = Literal[
    "no-packets", "unread", "tunnels", "no-instance", "no-group", "unread-filters", "unknown-members",
    "old-not-in-force", "out-of-scope", "undecided", "unsure-openers", "other-owner", "nat-gateway", "truncated",
    "one-direction", "mirror-cut", "malformed", "duplicates", "overlap", "clocks", "other-vpc", "about-nobody",
    "short-window", "interrupted", "records-lost", "records-late", "change-in-record", "unseen-answers",
]  # fmt: skip

#: Share from which most of what an answer rests on is missing.
MOSTLY = 0.5
#: Most networks that a reason lists.
LISTED_NETWORKS = 10

#: The parts of an answer that each reason makes uncertain, by the reason's code.
CODES: dict[EvidenceCode, frozenset[Part]] = {
    "no-packets": frozenset(("verdicts", "answers", "counts", "absence")),
    "unread": frozenset(("verdicts", "answers", "counts", "absence")),
    # Where tunnels are between addresses that no instance has, the tunnels are the cause.
    "tunnels": frozenset(("verdicts", "answers", "absence")),
    "no-instance": frozenset(("verdicts", "answers", "counts", "absence")),
    "no-group": frozenset(("verdicts", "absence")),
    "unread-filters": frozenset(("verdicts", "absence")),
    "unknown-members": frozenset(("verdicts", "absence")),
    "old-not-in-force": frozenset(("verdicts", "absence")),
    "out-of-scope": frozenset(("verdicts", "absence")),
    "undecided": frozenset(("verdicts", "absence")),
    "unsure-openers": frozenset(("verdicts", "absence")),
    "other-owner": frozenset(("verdicts", "absence")),
    "nat-gateway": frozenset(("verdicts", "absence")),
    "truncated": frozenset(("verdicts", "answers", "absence")),
    "one-direction": frozenset(("verdicts", "answers", "absence")),
    "mirror-cut": frozenset(("verdicts", "answers", "absence")),
    "malformed": frozenset(("verdicts", "answers", "absence")),
    "duplicates": frozenset(("counts", "absence")),
    "overlap": frozenset(("verdicts", "counts")),
    "clocks": frozenset(("verdicts",)),
    "other-vpc": frozenset(("verdicts",)),
    "about-nobody": frozenset(("verdicts", "absence")),
    "short-window": frozenset(("absence",)),
    "interrupted": frozenset(("counts", "absence")),
    "records-lost": frozenset(("verdicts", "counts", "absence")),
    "records-late": frozenset(("counts",)),
    "change-in-record": frozenset(("counts",)),
    "unseen-answers": frozenset(("answers",)),
}


#: Beginnings of sentences on reasons, by level.
_SAID = {"no": "Cannot tell", "partly": "Not certain"}


@dataclass(frozen=True, slots=True)
class EvidenceReason:
    """Reason why an answer is not conclusive.

    ``code``: its code, which keeps its meaning.
    ``level``: whether it makes the whole answer uncertain, or a part of it.
    ``packets``: number of packets (of records, connections or expectations where there are no packets).
    ``share``: the share of these packets in all, from 0 to 1.
    ``sentence``: cause in one sentence, without a full stop.
    ``command``: command or option that mends it.
    ``networks``: networks with most packets, and these packets; only for codes about addresses that no instance has.
    ``accepted``: whether the user accepts the answer in spite of it (``--accept-evidence``).
    """

    code: EvidenceCode
    level: Literal["no", "partly"]
    packets: int
    share: float
    sentence: str
    command: str
    networks: tuple[tuple[str, int], ...] = ()
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """The reasons to doubt an answer (SPEC 10.27).

    ``reasons``: reasons that make the whole answer uncertain come first.
    """

    reasons: tuple[EvidenceReason, ...] = ()

    @classmethod
    def of(cls, reasons: Iterable[EvidenceReason]) -> Evidence:
        """Return the evidence with these reasons in order."""
        order = list(CODES)
        return cls(tuple(sorted(reasons, key=lambda reason: (reason.level == "partly", order.index(reason.code)))))

    @property
    def open_reasons(self) -> tuple[EvidenceReason, ...]:
        """Reasons that the user has not accepted."""
        return tuple(reason for reason in self.reasons if not reason.accepted)

    @property
    def conclusive(self) -> Conclusive:
        """``no`` if a reason that is not accepted makes the whole answer uncertain, ``partly`` if one makes a part of
        it so, else ``yes``.
        """
        levels = {reason.level for reason in self.open_reasons}
        return "no" if "no" in levels else "partly" if levels else "yes"

    @property
    def sentences(self) -> list[str]:
        """Full sentences on the reasons that the user has not accepted, and on what mends them."""
        reasons = self.open_reasons
        return [f"{_SAID[reason.level]}: {ended(reason.sentence)} To mend it: {reason.command}." for reason in reasons]

    def carries(self, *parts: Part) -> bool:
        """Return whether no reason makes one of these parts of the answer uncertain."""
        return not any(CODES[reason.code].intersection(parts) for reason in self.open_reasons)

    def without(self, code: EvidenceCode) -> Evidence:
        """Return the evidence without the reason of a code."""
        return Evidence(tuple(reason for reason in self.reasons if reason.code != code))

    def doubts(self, part: Part) -> bool:
        """Return whether a reason, accepted or not, makes this part of the answer uncertain."""
        return any(part in CODES[reason.code] for reason in self.reasons)

    def accepting(self, codes: Iterable[EvidenceCode]) -> Evidence:
        """Return the evidence with reasons of these codes accepted."""
        accepted = set(codes)
        return Evidence(tuple(replace(reason, accepted=reason.code in accepted) for reason in self.reasons))


@dataclass(frozen=True, slots=True)
class UnreadFiles:
    """Files that could not be read, or not to their end.

    ``partly``: the number of files that could not be read to their end.
    ``whole``: the number of files of which nothing could be read.
    ``files``: the number of all files.
    ``bytes``: the number of bytes that are known to be unread. Nobody knows what a file lost that was cut.
    ``all_bytes``: the size of all files; 0 if that of one is unknown.
    """

    partly: int = 0
    whole: int = 0
    files: int = 0
    bytes: int = 0
    all_bytes: int = 0

    @classmethod
    def of(cls, unread: Iterable[tuple[int | None, int]], others: Iterable[int | None]) -> UnreadFiles:
        """Return the files with these sizes in bytes; None: it is unknown. ``unread``: also the bytes read of each."""
        files = list(unread)
        sizes = [*(size for size, _ in files), *others]
        known_sizes = [size for size in sizes if size is not None]
        unread_count = sum(not read for _, read in files)
        lost = sum(max((size or 0) - read, 0) for size, read in files)
        all_bytes = sum(known_sizes) if len(known_sizes) == len(sizes) else 0
        return cls(len(files) - unread_count, unread_count, len(sizes), lost, all_bytes)

    def __add__(self, other: UnreadFiles) -> UnreadFiles:
        return UnreadFiles(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def reasons(self, noun: str) -> list[EvidenceReason]:
        """Return the reason that they give to doubt an answer. ``noun``: the kind of file."""
        if not self.partly + self.whole:
            return []
        share = self.bytes / self.all_bytes if self.all_bytes else self.whole / self.files
        some, lost = (f"{number:,} {noun}{'s' if number > 1 else ''}" for number in (self.partly, self.whole))
        words = [f"{some} could be read only in part"] if self.partly else []
        words += [f"{lost} could not be read at all"] if self.whole else []
        missing_share = f": {100 * share:.0f} % of the bytes are missing" if share >= 0.005 and self.all_bytes else ""
        command = f"whole {noun}s in their place; the warnings name them"
        return [EvidenceReason("unread", level_of(share), 0, share, f"{' and '.join(words)}{missing_share}", command)]


#: Evidence of an answer that nothing makes uncertain.
SOUND = Evidence()


def level_of(share: float) -> Literal["no", "partly"]:
    """Return the level of a reason by the share that is missing."""
    return "no" if share >= MOSTLY else "partly"


def ended(sentence: str) -> str:
    """Return the sentence with a full stop, unless it is a question."""
    return sentence if sentence.endswith("?") else f"{sentence}."


def known_codes(codes: Iterable[str]) -> tuple[EvidenceCode, ...]:
    """Return each code once, in the order of ``CODES``. Raise ArgumentError for an unknown code."""
    texts = (codes,) if isinstance(codes, str) else tuple(codes)
    for code in texts:
        if code not in CODES:
            raise ArgumentError(f"{code[:40]!r} is not one of {', '.join(CODES)}{did_you_mean(code, tuple(CODES))}")
    return tuple(code for code in CODES if code in texts)
