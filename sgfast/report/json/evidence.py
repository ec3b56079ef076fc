"""Types of the evidence of an answer (SPEC 10.27)."""

from __future__ import annotations

from typing import Annotated, Literal

from sgfast.base.evidence import CODES, Conclusive
from sgfast.base.json_types import Answer, Keywords, at, one_of
from sgfast.report.json.values import Count


class JsonNetwork(Answer):
    network: str = at(lambda network_and_count: network_and_count[0])
    packets: Count = at(lambda network_and_count: network_and_count[1])


class JsonEvidenceReason(Answer):
    code: Annotated[str, one_of(CODES)]
    level: Annotated[Literal["no", "partly"], "Whether it makes the whole answer uncertain, or a part of it."]
    packets: Annotated[Count, "Of connections, records or expectations where the reason is about these."]
    share: Annotated[float, Keywords(minimum=0, maximum=1), "Part of all of these."]
    sentence: str
    command: Annotated[str, "Command or option that mends it."]
    networks: Annotated[list[JsonNetwork], "Networks that no instance has, with most packets first; ten at most."]
    accepted: Annotated[bool, "Whether --accept-evidence names the code."]


class JsonEvidence(Answer):
    """Reasons to doubt the answer."""

    conclusive: Annotated[Conclusive, "no: the answer cannot be relied on; partly: a part of it cannot."]
    reasons: list[JsonEvidenceReason]


EvidenceField = Annotated[JsonEvidence, "How far the traffic can carry the answer."]
