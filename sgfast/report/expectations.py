"""The output of ``sgfast test`` as a report and as JUnit's XML, and the message of a failing test in pytest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sgfast.base.names import printable
from sgfast.policy.document_reader import Lines
from sgfast.policy.expectations import Expectation
from sgfast.policy.model import Rule
from sgfast.policy.rule_text import rule_text
from sgfast.policy.yaml_nodes import shown_origin
from sgfast.report.amounts import grouped, plural
from sgfast.report.document import Document, Item, Items, Paragraph, Section
from sgfast.report.evidence import evidence_blocks, headline_of
from sgfast.rules.reaching.explaining import Explanation, sentence
from sgfast.rules.reaching.misfits import Misfit
from sgfast.rules.reaching.proving import ExpectationsResult, Outcome

#: The most failing expectations, holding expectations and warnings in the text before "and N more".
TOP = 5

_WANTED = {"allow": "should be allowed", "deny": "should be denied"}
_IS = {"allow": "is allowed", "deny": "is denied"}


def expectations_document(proof: ExpectationsResult, lines: Lines, warnings: list[str]) -> Document:
    """Return the report. ``lines``: the line numbers of the policy's rules, as far as they are known."""
    uncertain, fails, empty = _uncertain(proof), proof.of("fails"), proof.of("empty")
    holds = [outcome for outcome in proof.of("holds") if outcome not in uncertain]
    empty_words = f", {grouped(len(empty))} {'is' if len(empty) == 1 else 'are'} about no packet" if empty else ""
    unknown_words = f", nobody can tell about {grouped(len(uncertain))}" if uncertain else ""
    heading = (
        f"{grouped(len(fails))} of {plural(len(proof.outcomes), 'expectation')} "
        f"{'fails' if len(fails) == 1 else 'fail'}, {grouped(len(holds))} {'holds' if len(holds) == 1 else 'hold'} for "
        f"all packets{empty_words}{unknown_words}"
    )
    of_failures = [[_failure_item(outcome, lines)] for outcome in fails[:TOP]]
    note = f"and {grouped(len(fails) - TOP)} more that fail (--json has all)"
    sections = [
        _listed(items, note if n == TOP and len(fails) > TOP else "") for n, items in enumerate(of_failures, 1)
    ]
    if uncertain:
        items = [Item("unsure ", _title(outcome.expectation, _WANTED), "yellow") for outcome in uncertain[:TOP]]
        note = f"and {grouped(len(uncertain) - TOP)} more of which nobody can tell (--json has all)"
        sections.append(_listed(items, note if len(uncertain) > TOP else ""))
    if holds:
        items = [Item("holds ", _title(outcome.expectation, _IS)) for outcome in holds[:TOP]]
        note = f"and {grouped(len(holds) - TOP)} more that hold (--json has all)"
        sections.append(_listed(items, note if len(holds) > TOP else ""))
    if warnings:
        items = [Item("warning ", printable(warning)) for warning in warnings[:TOP]]
        note = f"and {plural(len(warnings) - TOP, 'more warning')} (--json has all)"
        sections.append(_listed(items, note if len(warnings) > TOP else ""))
    if proof.evidence.conclusive == "no":
        heading = headline_of(proof.evidence, "")
    return [Section(heading, evidence_blocks(proof.evidence)), *sections]


def _uncertain(proof: ExpectationsResult) -> list[Outcome]:
    """Return the outcomes that hold only if an address is not that of an instance of another VPC."""
    return [outcome for outcome in proof.uncertain if "other-vpc" not in proof.accepted_evidence]


def _listed(items: Sequence[Item], note: str) -> Section:
    """Return a section of items. ``note``: the sentence on items that are left out; empty if there are none."""
    return Section("", [Items(items), *([Paragraph(note)] if note else [])], goes_on=True)


def _title(expectation: Expectation, verdicts: Mapping[str, str]) -> str:
    """Return ``line 3: web to db: tcp/5432 is allowed``."""
    name = f"{expectation.name}: " if expectation.name else ""
    line = f"line {expectation.line}: " if expectation.line else ""
    return printable(f"{line}{name}{expectation.text} {verdicts[expectation.verdict]}")


def _failure_item(outcome: Outcome, lines: Lines) -> Item:
    counterexample = outcome.counterexample
    assert counterexample is not None
    why = outcome.expectation.why
    below = [Item("because:", printable(why))] if why else []
    below.append(Item("but", printable(sentence(counterexample))))
    for rule, _ in _deciding(counterexample):
        text = f"{rule.id}  {rule_text(rule, counterexample.policy)}"
        below.append(Item("", printable(text) + _line(rule, lines, "  line {}")))
    return Item("FAILS ", _title(outcome.expectation, _WANTED), "red", below)


def _deciding(counterexample: Explanation) -> Iterator[tuple[Rule, tuple[Misfit, ...]]]:
    """Yield the rules that decided, or the nearest rules and the reasons why they do not match."""
    for side in (counterexample.egress, counterexample.ingress):
        if side is None or not side.reached or (counterexample.verdict == "deny" and side.verdict != "deny"):
            continue
        if side.winner is not None:
            yield counterexample.policy._first_twin(side.winner.rule), ()
        for miss in side.nearest[:1]:
            yield counterexample.policy._first_twin(miss.rule), miss.misfits


def _line(rule: Rule, lines: Lines, form: str) -> str:
    line = lines.get(("rules", rule.id))
    return "" if line is None else form.format(line)


def _but(expectation: Expectation, counterexample: str) -> str:
    why = f" because: {expectation.why}" if expectation.why else ""
    return f"{expectation.text} {_WANTED[expectation.verdict]}{why}, but {counterexample}"


def failure_text(outcome: Outcome, lines: Lines) -> str:
    """Return why an expectation fails, as the message of a test: one line on what happens, and one line for each rule
    that decides, or that is nearest.
    """
    expectation, counterexample = outcome.expectation, outcome.counterexample
    assert counterexample is not None
    text = [_but(expectation, sentence(counterexample))]
    for rule, misfits in _deciding(counterexample):
        place = _line(rule, lines, f"{shown_origin(counterexample.policy.origin)}:{{}}: ")
        missed = "; ".join(f"{misfit.field}: wants {misfit.wanted}, the packet has {misfit.has}" for misfit in misfits)
        words = rule_text(rule, counterexample.policy)
        text.append(f"  {place}{rule.id}  {words}{f'  ({missed})' if missed else ''}")
    return "\n".join(map(printable, text))


def expectations_junit(proof: ExpectationsResult) -> str:
    """Return JUnit's XML, one test case for each expectation. One that is about no packet counts as failed, or as
    skipped if the user accepts that.
    """
    from xml.etree.ElementTree import Element, SubElement, indent, tostring

    uncertain = _uncertain(proof)
    fails, empty = len(proof.of("fails")) + len(uncertain), len(proof.of("empty"))
    failures, skipped = (fails, empty) if "about-nobody" in proof.accepted_evidence else (fails + empty, 0)
    counts = {
        "tests": str(len(proof.outcomes)), "failures": str(failures), "errors": "0", "skipped": str(skipped),
        "time": "0",
    }  # fmt: skip
    suites = Element("testsuites", {"name": "sgfast test", **counts})
    suite = SubElement(suites, "testsuite", {"name": printable(proof.policy.origin), **counts})
    for number, outcome in enumerate(proof.outcomes, 1):
        expectation = outcome.expectation
        case = SubElement(suite, "testcase", {
            "classname": printable(proof.origin),
            "name": printable(expectation.name or f"{number}. {expectation.text} {expectation.verdict}"),
            "file": printable(proof.origin),
            "line": str(expectation.line),
            "time": "0",
        })  # fmt: skip
        if outcome.counterexample is not None:
            message = printable(sentence(outcome.counterexample))
            failure = SubElement(case, "failure", {"message": message, "type": f"expected-{expectation.verdict}"})
            failure.text = printable(_but(expectation, message))
        elif outcome in uncertain:
            message = printable("; ".join(outcome.warnings))
            SubElement(case, "failure", {"message": message, "type": "cannot-tell"}).text = message
        elif outcome.word == "empty":
            message = printable("; ".join(outcome.warnings))
            if skipped:
                SubElement(case, "skipped", {"message": message})
            else:
                SubElement(case, "failure", {"message": message, "type": "about-nobody"})
    indent(suites)
    # ASCII with character references can be printed in every encoding.
    text: bytes = tostring(suites, encoding="us-ascii", xml_declaration=True)
    return text.decode() + "\n"
