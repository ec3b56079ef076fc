"""Expectations that hold or fail (SPEC 10.23)."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Literal

from sgfast.base.json_types import Answer, at
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Action
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.explain import JsonExplain, explain_answer
from sgfast.report.json.values import Count, File, Number, Text, TextOrNull
from sgfast.rules.reaching.explaining import sentence
from sgfast.rules.reaching.proving import ExpectationsResult, Outcome

#: The texts of words of the file.
WordTexts = list[Annotated[Text, attrgetter("text")]]


class JsonOutcome(Answer):
    name: TextOrNull = at("expectation.name")
    line: Annotated[Number, "The expectation's line in the file."] = at("expectation.line")
    from_: WordTexts = at("expectation.sources")
    to: WordTexts = at("expectation.destinations")
    service: WordTexts = at("expectation.services")
    verdict: Annotated[Action, "The expected verdict."] = at("expectation.verdict")
    why: TextOrNull = at("expectation.why")
    outcome: Literal["holds", "fails", "empty"] = at("word")
    nobody: Annotated[WordTexts, "Words of from and to that mean no address."]
    cause: Annotated[
        str | None, sentence, "The counterexample in one sentence, with the rules that decide or nearly match."
    ] = at("counterexample")
    counterexample: Annotated[
        JsonExplain | None, "A packet that gets another verdict, in the schema explain; null: there is none."
    ]


class JsonTest(Answer, published="test"):
    policy: File = at("policy.origin")
    expectations: Annotated[File, "The expectations file."] = at("origin")
    holds: Annotated[Count, "Expectations that hold for all packets."] = at(lambda proof: len(proof.of("holds")))
    fails: Annotated[Count, "Expectations that some packet contradicts."] = at(lambda proof: len(proof.of("fails")))
    evidence: EvidenceField
    empty: Annotated[Count, "Expectations that are about no packet."] = at(lambda proof: len(proof.of("empty")))
    results: Annotated[list[JsonOutcome], "The expectations in the order of the file."]
    warnings: list[str]


def expectations_answer(proof: ExpectationsResult, lines: Lines, warnings: list[str]) -> dict[str, Any]:
    """Return the JSON object. ``lines``: the line numbers of the policy's rules, as far as they are known."""
    return JsonTest.of(proof, results=[_outcome(outcome, lines) for outcome in proof.outcomes], warnings=warnings)


def _outcome(outcome: Outcome, lines: Lines) -> dict[str, Any]:
    example = outcome.counterexample
    return JsonOutcome.of(outcome, counterexample=None if example is None else explain_answer(example, lines))
