"""A web service: would the policy allow this, and why? And what has it done to the packets that were sent?"""

import logging
import os
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from pydantic import Base64Bytes, BaseModel, Field

import sgfast

POLICY = Path(os.environ.get("SGFAST_POLICY", "pcaps/shop.yaml"))
CHECK_SECONDS = float(os.environ.get("SGFAST_CHECK_SECONDS", "2"))
MINUTE_NS = 60 * 10**9


class Loaded(NamedTuple):
    """A policy, and an engine that judges by it."""

    policy: sgfast.Policy
    engine: sgfast.Engine


loaded: Loaded

metrics = CollectorRegistry()
packets = Counter("sgfast_packets", "Packets that were judged", ["verdict", "reason"], registry=metrics)
rules = Counter("sgfast_rule_packets", "Packets that a rule decided about", ["rule", "reason"], registry=metrics)
loads = Counter("sgfast_policy_loads", "Loads of the policy", ["result"], registry=metrics)
load_time = Gauge("sgfast_policy_load_timestamp_seconds", "The time of the last load", registry=metrics)
open_connections = Gauge("sgfast_open_connections", "Connections that are open", registry=metrics)
open_connections.set_function(lambda: loaded.engine.open_connections)
max_connections = Gauge("sgfast_max_connections", "The most connections that are remembered", registry=metrics)
max_connections.set_function(lambda: loaded.policy.settings.max_connections)


def load(**source: Any) -> Loaded:
    """Take a policy into use. Requests that have begun end with the one before."""
    global loaded
    try:
        policy = sgfast.load(**source)
        made = Loaded(policy, sgfast.Engine(policy))
    except sgfast.SgfastError:
        loads.labels("refused").inc()
        raise
    loaded = made
    rules.clear()       # else the name of every rule that there ever was would stay
    loads.labels("done").inc()
    load_time.set_to_current_time()
    return made


def stamp() -> tuple[int, ...]:
    """Return what changes when another file takes the place of the policy's; nothing if there is none."""
    try:
        found = POLICY.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


loaded_stamp = stamp()  # before the file is read, so that no change is missed
load(source=POLICY)


def watch(stop: threading.Event, seen: tuple[int, ...]) -> None:
    """Load the policy's file whenever it has changed."""
    while not stop.wait(CHECK_SECONDS):
        now = stamp()
        if now != seen:
            seen = now
            try:
                load(source=POLICY)
            except sgfast.SgfastError as error:
                logging.getLogger("uvicorn.error").error("The policy stays as it was. %s", error)


@asynccontextmanager
async def watching(_: FastAPI) -> AsyncGenerator[None, None]:
    stop = threading.Event()
    threading.Thread(target=watch, args=[stop, loaded_stamp], daemon=True).start()
    yield
    stop.set()


app = FastAPI(title="sgfast", lifespan=watching)


@app.exception_handler(sgfast.SgfastError)
def refuse(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=400)


class Answer(BaseModel):
    allowed: bool
    text: str
    explanation: dict[str, Any]


@app.get("/allowed")
def explain(source: str, destination: str, service: str, vpc: str | None = None) -> Answer:
    """Say whether a connection would be allowed, and why."""
    answer = loaded.policy.explain(source, destination, service, vpc=vpc)
    return Answer(allowed=answer.allowed, text=str(answer), explanation=answer.to_dict())


async def body(request: Request) -> bytes:
    return await request.body()


@app.put("/policy")
def put_policy(text: Annotated[bytes, Depends(body)]) -> dict[str, int]:
    """Take the policy into use whose document is sent. What is sent never names a file."""
    policy, engine = load(text=text)
    return {"rules": len(engine.rules), "instances": len(policy.instances)}


Time = Annotated[int, Field(default_factory=time.time_ns, ge=0, le=2**62)]


class Packet(BaseModel):
    src: IPv4Address | IPv6Address
    dst: IPv4Address | IPv6Address
    protocol: str | int = "tcp"
    sport: int | None = None
    dport: int | None = None
    flags: str = "S"
    icmp_type: int | None = None
    icmp_code: int | None = None
    time_ns: Time


class Frame(BaseModel):
    data: Base64Bytes
    time_ns: Time


class Sent(BaseModel):
    packets: list[Packet] = Field([], max_length=10_000)
    frames: list[Frame] = Field([], max_length=10_000)


@app.post("/packets")
def judge(sent: Sent) -> list[dict[str, Any]]:
    """Judge the packets and then the frames in the order given, and remember the connections that they open."""
    now_ns = time.time_ns()
    for time_ns in (*(packet.time_ns for packet in sent.packets), *(frame.time_ns for frame in sent.frames)):
        if abs(time_ns - now_ns) > MINUTE_NS:
            raise HTTPException(400, f"time_ns {time_ns} is over a minute from the server's clock, {now_ns}")
    engine = loaded.engine
    rows = [sgfast.header(**packet.model_dump()) for packet in sent.packets]
    results = np.concatenate([
        engine.process(np.concatenate([np.empty(0, sgfast.HEADER_DTYPE), *rows])),
        engine.process_frames([frame.data for frame in sent.frames], [frame.time_ns for frame in sent.frames]),
    ])
    # A fragment that came before its datagram's first one has no verdict yet.
    count(engine, np.concatenate([results[results["verdict"] != sgfast.PENDING], engine.resolved()["result"]]))
    return [engine.verdict(row).to_dict() for row in results]


def count(engine: sgfast.Engine, results: Any) -> None:
    for (verdict, reason), number in zip(*np.unique(results[["verdict", "reason"]], return_counts=True), strict=True):
        packets.labels(sgfast.VERDICTS[verdict], sgfast.REASONS[reason] or "").inc(number)
    for side in results["egress"], results["ingress"]:
        decided = side[side["rule"] >= 0]
        for (rule, reason), number in zip(*np.unique(decided[["rule", "reason"]], return_counts=True), strict=True):
            rules.labels(engine.rules[rule].id, sgfast.REASONS[reason]).inc(number)


@app.get("/metrics")
def tell() -> Response:
    return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)
