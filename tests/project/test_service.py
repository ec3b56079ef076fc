"""The service of docs/how-to/serve.md: real requests, reloads among them, and the metrics of what was sent."""

from __future__ import annotations

import base64
import importlib.util
import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import datagrams
import frames as f
import pytest
from command import wait_for

import sgfast

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("prometheus_client")

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "docs" / "how-to" / "service.py"
SHOP = (ROOT / "pcaps" / "shop.yaml").read_text()
#: The same policy, but no client reaches port 80.
CLOSED = SHOP.replace("ports: 80", "ports: 81")
CLIENT, WEB = "198.51.100.7", "10.0.0.5"
QUESTION = {"source": CLIENT, "destination": "web-1", "service": "tcp/80"}


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(SHOP)
    return path


@pytest.fixture
def service(policy: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("SGFAST_POLICY", str(policy))
    monkeypatch.setenv("SGFAST_CHECK_SECONDS", "0.01")
    spec = importlib.util.spec_from_file_location("service", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def client(service: ModuleType) -> Iterator[TestClient]:
    with TestClient(service.app) as made:
        yield made


def ask(client: TestClient) -> Any:
    answer = client.get("/allowed", params=QUESTION)
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(client: TestClient, *packets: dict[str, Any], frames: Any = ()) -> list[Any]:
    encoded = [{"data": base64.b64encode(frame).decode(), "time_ns": time.time_ns()} for frame in frames]
    answer = client.post("/packets", json={"packets": packets, "frames": encoded})
    assert answer.status_code == 200, answer.text
    judged: list[Any] = answer.json()
    return judged


def opener(sport: int, dport: int = 80, **fields: Any) -> dict[str, Any]:
    return {"src": CLIENT, "dst": WEB, "sport": sport, "dport": dport, "time_ns": time.time_ns(), **fields}


def metrics(client: TestClient) -> dict[tuple[str, ...], float]:
    """Read the samples by name and by the values of their labels, in the order of the labels' names."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_created")]
    return {(one.name, *(one.labels[key] for key in sorted(one.labels))): one.value for one in samples}


def test_the_guide_shows_the_whole_program() -> None:
    shown = re.findall(r"^```python\n(.*?)^```", PROGRAM.with_name("serve.md").read_text(), flags=re.M | re.S)
    assert "\n".join(shown).replace("\n", "") == PROGRAM.read_text().replace("\n", "")


def test_an_answer_is_the_one_of_the_library_and_has_text_for_people(client: TestClient, policy: Path) -> None:
    expected = sgfast.load(policy).explain(CLIENT, "web-1", "tcp/80")
    assert ask(client) == {"allowed": True, "text": str(expected), "explanation": expected.to_dict()}
    denied = client.get("/allowed", params=QUESTION | {"service": "tcp/22"}).json()
    assert denied["allowed"] is False and "denied (no-rule)" in denied["text"]


def test_a_question_that_means_nothing_is_the_clients_error_in_one_line(client: TestClient) -> None:
    for wrong, message in (
        ({"destination": "web-9"}, "'web-9' is no instance, security group or address group"),
        ({"service": "tcpp/80"}, "'tcpp/80' is no service"),
        ({"vpc": "elsewhere"}, "elsewhere"),
    ):
        answer = client.get("/allowed", params=QUESTION | wrong)
        assert answer.status_code == 400
        assert message in answer.json()["detail"] and "\n" not in answer.json()["detail"]
    assert client.get("/allowed", params={"source": "web-1"}).status_code == 422
    assert client.post("/packets", json={"packets": [opener(1, dport="http")]}).status_code == 422
    assert client.post("/packets", json={"packets": [opener(1)] * 10_001}).status_code == 422
    assert client.post("/packets", json={"frames": [{"data": "AA==", "time_ns": 2**63}]}).status_code == 422


def test_the_text_of_a_policy_that_looks_like_a_path_opens_no_file(client: TestClient, policy: Path) -> None:
    other = policy.with_name("other.yaml")
    other.write_text(CLOSED)
    for path in (str(other), os.path.relpath(other), f"{other}\n", f"file://{other}", str(other.parent), "-"):
        answer = client.put("/policy", content=path)
        assert answer.status_code == 400 and answer.json()["detail"].startswith("<policy>")
    assert ask(client)["allowed"] is True
    assert metrics(client)["sgfast_policy_loads_total", "refused"] == 6
    assert client.put("/policy", content=other.read_bytes()).json() == {"rules": 9, "instances": 3}
    assert ask(client)["allowed"] is False


def test_a_reload_among_many_requests_fails_none_and_mixes_no_policies(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new policy is held back while it is compiled: half of the requests come then, and half afterwards."""
    compiling, go_on = threading.Event(), threading.Event()
    make_engine = sgfast.Engine

    def held(policy: sgfast.Policy) -> sgfast.Engine:
        compiling.set()
        assert go_on.wait(60)
        return make_engine(policy)

    def both(port: int) -> tuple[Any, Any]:
        return ask(client), send(client, opener(port))[0]

    old = both(1)
    with ThreadPoolExecutor(16) as pool:
        monkeypatch.setattr(sgfast, "Engine", held)
        reload = pool.submit(client.put, "/policy", content=CLOSED)
        assert compiling.wait(60)
        early = [pool.submit(both, 1000 + n) for n in range(50)]
        assert [each.result() for each in early] == [old] * 50
        late = [pool.submit(both, 2000 + n) for n in range(50)]
        go_on.set()
        assert reload.result().status_code == 200
        new = both(2)
        found = [each.result() for each in late]
    assert (old[0]["allowed"], new[0]["allowed"]) == (True, False)
    assert (old[1]["verdict"], new[1]["verdict"]) == ("allow", "deny")
    for question, packet in found:
        assert question in (old[0], new[0]) and packet in (old[1], new[1])
        # One request after the other: what the second sees is no older than what the first saw.
        assert question == old[0] or packet == new[1]


def test_the_file_is_loaded_when_it_changes_and_a_broken_one_is_not_taken(client: TestClient, policy: Path) -> None:
    def replace(text: str | None) -> None:
        if text is None:
            return policy.unlink()
        policy.with_name("new").write_text(text)
        shutil.move(policy.with_name("new"), policy)

    def loads(result: str) -> float:
        return metrics(client).get(("sgfast_policy_loads_total", result), 0)

    assert ask(client)["allowed"] and loads("done") == 1
    began = metrics(client)["sgfast_policy_load_timestamp_seconds",]
    for text, done, refused in ((CLOSED, 2, 0), (CLOSED[:-40] + "%", 2, 1), (None, 2, 2), (SHOP, 3, 2)):
        replace(text)
        wait_for(lambda done=done, refused=refused: (loads("done"), loads("refused")) == (done, refused))
        assert ask(client)["allowed"] == (text == SHOP)
    assert metrics(client)["sgfast_policy_load_timestamp_seconds",] >= began


def test_metrics_are_what_was_sent(client: TestClient) -> None:
    datagram = datagrams.Datagram(CLIENT, WEB, f.udp(5353, 53, b"x" * 40))
    first, second = (f.ethernet(piece) for piece in datagram.pieces("0-24+ 24-48"))
    judged = [
        *send(client, opener(1), opener(2), opener(3, 22)),
        *send(client, {"src": WEB, "dst": CLIENT, "sport": 80, "dport": 1, "flags": "SA"}),
        *send(client, {"src": WEB, "dst": "10.0.1.9", "sport": 5, "dport": 5432}),
        *send(client, frames=[b"", f.ethernet(f.ip(CLIENT, WEB, f.tcp(4, 80, "S")))]),
        *send(client, frames=[second]),
    ]
    assert judged.pop() == {"verdict": "pending", "reason": None, "egress": None, "ingress": None}
    # The first fragment settles the one that was sent before it.
    judged += send(client, frames=[first]) * 2
    expected: Counter[tuple[str, ...]] = Counter()
    for one in judged:
        expected["sgfast_packets_total", one["reason"] or "", one["verdict"]] += 1
        for side in filter(None, (one["egress"], one["ingress"])):
            expected["sgfast_rule_packets_total", side["reason"], side["rule"]] += side["rule"] is not None
    assert expected["sgfast_packets_total", "rule", "allow"] == 4
    assert expected["sgfast_rule_packets_total", "established", "web-http-4"] == 1
    found = metrics(client)
    assert {key: n for key, n in found.items() if "packets" in key[0]} == {k: n for k, n in expected.items() if n}
    assert found["sgfast_open_connections",] == 4 and found["sgfast_max_connections",] == 4_000_000


@pytest.mark.parametrize("kind", ["packets", "frames"])
def test_no_client_moves_the_clock_of_all_by_more_than_a_minute(kind: str, client: TestClient) -> None:
    """A packet from the far future would end the connections of all clients."""
    send(client, opener(1), {"src": WEB, "dst": CLIENT, "sport": 80, "dport": 1, "flags": "SA"}, opener(1, flags="A"))
    frame = f.ethernet(f.ip(CLIENT, WEB, f.tcp(2, 80, "S")))
    for minutes, status in ((-2, 400), (-0.9, 200), (0.9, 200), (2, 400), (10**7, 400)):
        time_ns = time.time_ns() + int(minutes * 60 * 10**9)
        one = opener(2, time_ns=time_ns) if kind == "packets" else {
            "data": base64.b64encode(frame).decode(), "time_ns": time_ns
        }  # fmt: skip
        before = metrics(client)
        answer = client.post("/packets", json={"packets": [opener(3)], kind: [one]})
        assert answer.status_code == status, minutes
        if status == 400:
            assert answer.json()["detail"].startswith(f"time_ns {time_ns} is over a minute from the server's clock, ")
            assert metrics(client) == before
    assert send(client, opener(1, flags="A"))[0]["reason"] == "established"


def test_one_wrong_packet_has_none_judged_and_none_counted(client: TestClient) -> None:
    answer = client.post("/packets", json={"packets": [opener(1), opener(2, src="2001:db8::1")]})
    assert (answer.status_code, answer.json()) == (
        400, {"detail": "2001:db8::1 and 10.0.0.5 are of different IP versions"}
    )  # fmt: skip
    found = metrics(client)
    assert found["sgfast_open_connections",] == 0 and not any("packets" in key[0] for key in found)


def test_labels_of_rules_are_those_of_the_policy_in_use_and_no_text_of_a_client_forges_a_metric(
    client: TestClient,
) -> None:
    send(client, opener(1))
    for name in ('a"} 1\nforged{x="', "a\\", "a\nforged 1"):
        document = {"version": 1, "security_groups": [{"name": "g", "rules": [{"id": name, "direction": "inbound"}]}]}
        assert client.put("/policy", json=document).status_code == 400
    assert ("sgfast_rule_packets_total", "rule", "web-http-4") in metrics(client)
    client.put("/policy", content=SHOP.replace("id: web-http-4", "id: a/b-c_d.e"))
    send(client, opener(1))
    rules = {key: n for key, n in metrics(client).items() if key[0].startswith("sgfast_rule")}
    assert rules == {("sgfast_rule_packets_total", "rule", "a/b-c_d.e"): 1}
    assert "forged" not in client.get("/metrics").text
