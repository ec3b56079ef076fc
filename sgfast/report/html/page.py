"""The frame of a page, which all reports share: head, navigation, sections, and the data that the page's script reads.

A page has one file, no network, and at most ``MOST_BYTES``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from string import Template

from sgfast.base.evidence import Evidence
from sgfast.questions.comparing import TrafficDiff
from sgfast.questions.replaying import ReplayResult
from sgfast.report.amounts import grouped, left_out_words, plural
from sgfast.report.document import Item, Name, Words
from sgfast.report.html.markup import Content, Markup, joined, tag, text
from sgfast.traffic.capture import Damage

#: The most bytes of a page, so that it can be mailed and a browser opens it at once.
MOST_BYTES = 5_000_000
#: An upper bound for the bytes that page.html and a note add to the parts of a page.
_FRAME_BYTES = 10_000
#: The least room for data, even if the page then has more than ``MOST_BYTES``.
_LEAST_ROOM = 200_000
#: Maximum number of warnings, and of captures, that are listed.
MAX_NAMED = 20


@dataclass(frozen=True, slots=True)
class PageSection:
    key: str
    #: The section's name in the navigation.
    name: str
    title: str
    content: Markup
    #: The number behind the name in the navigation, with its unit unless the name is the unit.
    count: str = ""
    #: False for traffic that is allowed, which nobody prints: the sheets are about what needs a decision.
    is_printed: bool = True


#: Takes the number of characters that the page has room for. Returns the script's data, and a sentence on what the data
#: leaves out.
Data = Callable[[int], tuple[Markup, str]]


def make_page(
    kind: str, title: str, head: Markup, sections: Sequence[PageSection], data: Data, scripts: Sequence[str]
) -> str:
    """Return the HTML document. ``kind``: the kind of report, in two words. ``scripts``: names of the scripts that the
    page needs besides page.js and matrix.js.
    """
    style = _asset("page.css")
    script = Markup("".join(_asset(f"{name}.js") for name in ("page", "matrix", *scripts)))
    script = Markup(f'"use strict";\n(() => {{\n{script}}})();\n')
    links = (
        tag(
            "a",
            section.name,
            section.count and joined(" ", tag("span", section.count, class_="count")),
            href=f"#{section.key}",
        )
        for section in sections
    )
    fixed = {
        "policy": text(_security_policy(style, script)),
        "title": text(title),
        "kind": text(kind),
        "style": style,
        "script": script,
        "head": head,
        "navigation": joined(*links),
    }
    content = [
        tag("section", tag("h2", section.title), section.content, id=section.key, aria_label=section.title,
            class_=None if section.is_printed else "unprinted")
        for section in sections
    ]  # fmt: skip
    if unprinted := [section.title for section in sections if not section.is_printed]:
        content.append(tag("p", f"Not printed: {'; '.join(unprinted)}.", class_="note paper"))
    used = sum(len(part.encode()) for part in (*fixed.values(), *content))
    read, left_out = data(max(MOST_BYTES - used - _FRAME_BYTES, _LEAST_ROOM))
    note = tag("p", left_out, class_="alert mild") if left_out else ""
    body = joined(note, *content, read)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    return Template(_asset("page.html")).substitute(**fixed, sections=body, digest=digest)


@cache
def _asset(name: str) -> Markup:
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _security_policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows this script and this style sheet and nothing else."""
    own_content = f"style-src {_hash(style)}; script-src {_hash(script)}"
    return f"default-src 'none'; {own_content}; base-uri 'none'; form-action 'none'"


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


# Parts of several reports ---------------------------------------------------------------------------------------------


def intro(*words: Content) -> Markup:
    return tag("p", *words, class_="intro")


def none(words: str) -> Markup:
    return tag("p", words, class_="none")


def short_name(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] or name


def captures_named(captures: Sequence[str]) -> str:
    shown = ", ".join(captures[:3])
    return shown + (f" and {plural(len(captures) - 3, 'more capture')}" if len(captures) > 3 else "")


def left_out(result: ReplayResult | TrafficDiff) -> Markup:
    if result.left_out is None:
        return Markup()
    return tag("p", f"Left out: {left_out_words(result.left_out)}.", class_="about")


def warnings_counted(warnings: Sequence[str]) -> str:
    return plural(len(warnings), "warning") if warnings else ""


def alert(damaged: Damage | None, warnings: Sequence[str], of: str) -> Markup:
    """Return notes for the top of the page. ``of``: what the warnings are about."""
    parts: list[Markup] = []
    if damaged is not None:
        words = joined(tag("b", "Damaged capture. "), f"{damaged}; the report ends there.")
        parts.append(tag("p", words, role="alert", class_="alert"))
    if warnings:
        link = tag("a", plural(len(warnings), "warning"), href="#about")
        parts.append(tag("p", link, f" about {of}.", class_="alert mild"))
    return joined(*parts)


def doubts(evidence: Evidence) -> Markup:
    """Reasons why the answer is not conclusive, which stand above its numbers."""
    parts = []
    for reason in evidence.reasons:
        words: list[Content] = [tag("b", f"{reason.code}{' (accepted)' if reason.accepted else ''}. ")]
        words.append(f"{reason.sentence[:1].upper()}{reason.sentence[1:]}. To mend it: ")
        words.append(tag("span", reason.command, class_="code"))
        if reason.networks:
            listed = ", ".join(f"{network} ({grouped(packets)})" for network, packets in reason.networks)
            words.append(f". Networks with most packets: {listed}")
        style = "mild" if reason.accepted else "partly" if reason.level == "partly" else ""
        parts.append(tag("p", *words, class_=f"alert {style}".strip()))
    return joined(*parts)


def written(words: Words) -> Markup:
    """Return the words of a document as HTML. Names look like code."""
    parts = (words,) if isinstance(words, str) else words
    return joined(*(tag("span", part, class_="code") if isinstance(part, Name) else part for part in parts))


def listed(label: str, texts: Sequence[Words]) -> list[Item]:
    """Return items for ``about``: the first texts, and the number of further ones."""
    items = [Item("" if n else label, words) for n, words in enumerate(texts[:MAX_NAMED])]
    if (unlisted := len(texts) - MAX_NAMED) > 0:
        items.append(Item("", f"and {plural(unlisted, f'more {label.lower()}')}"))
    return items


def damage_listed(damaged: Damage | None) -> list[Item]:
    return [] if damaged is None else [Item("Damage", f"{damaged}; the report ends there")]


def about_section(items: Sequence[Item]) -> Markup:
    parts = (joined(tag("dt", written(item.label)), tag("dd", written(item.words))) for item in items)
    return tag("dl", *parts, class_="about")
