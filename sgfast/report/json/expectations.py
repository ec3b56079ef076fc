"""Expectations that hold or fail (SPEC 10.23)."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any, Literal

from sgfast.json_types import Answer, at
from sgfast.policy.document_reader import Lines
from sgfast.policy.model import Action
from sgfast.reaching.explaining import sentence
from sgfast.reaching.proving import Outcome, Proof
from sgfast.report.json.evidence import EvidenceField
from sgfast.report.json.explain import JsonExplain, explain_answer
from sgfast.report.json.values import Count, File, Number, Text, TextOrNull

#: Words of the file with their places.
WordTexts = list[Annotated[Text, attrgetter("text")]]


class JsonOutcome(Answer):
    name: TextOrNull = at("expectation.name")
    line: Annotated[Number, "Where it stands in the file."] = at("expectation.line")
    from_: WordTexts = at("expectation.sources")
    to: WordTexts = at("expectation.destinations")
    service: WordTexts = at("expectation.services")
    verdict: Annotated[Action, "What is expected."] = at("expectation.verdict")
    why: TextOrNull = at("expectation.why")
    outcome: Literal["holds", "fails", "empty"] = at("word")
    nobody: Annotated[WordTexts, "Words of from and to that stand for no address."]
    cause: Annotated[
        str | None, sentence, "The counterexample in one sentence, with the rules that decide or nearly match."
    ] = at("counterexample")
    counterexample: Annotated[
        JsonExplain | None, "A packet that gets another verdict, in the schema explain; null: there is none."
    ]


class JsonTest(Answer, published="test"):
    policy: File = at("policy.origin")
    expectations: Annotated[File, "The file that says what is meant."] = at("origin")
    holds: Annotated[Count, "Expectations that hold for all packets."] = at(lambda proof: len(proof.of("holds")))
    fails: Annotated[Count, "Expectations that some packet contradicts."] = at(lambda proof: len(proof.of("fails")))
    empty: Annotated[Count, "Expectations that are about no packet."] = at(lambda proof: len(proof.of("empty")))
    results: Annotated[list[JsonOutcome], "In the order of the file."]
    evidence: EvidenceField
    warnings: list[str]


def expectations_answer(proof: Proof, lines: Lines, warnings: list[str]) -> dict[str, Any]:
    """Return the JSON object. ``lines`` gives the lines of rules in the policy, as far as they are known."""
    return JsonTest.of(proof, results=[_outcome(each, lines) for each in proof.outcomes], warnings=warnings)


def _outcome(outcome: Outcome, lines: Lines) -> dict[str, Any]:
    found = outcome.counterexample
    return JsonOutcome.of(outcome, counterexample=None if found is None else explain_answer(found, lines))
