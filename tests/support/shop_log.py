"""Write the AWS flow logs of the shop to ``pcaps``. Run this file as a program after a change.

The cloud's groups are not those of ``shop.yaml``: ``web`` has port 8080 open, and not port 81. The log of a month has
the recording's TCP and UDP connections once a day, and no records of intervals without traffic.
"""

from __future__ import annotations

import gzip
from pathlib import Path

from flow_log_writer import AWS_V2, SECOND, Logged, write_aws
from recordings import verdict_lines
from slow_diff import frames_of

from sgfast.clouds.loading import load

PCAPS = Path(__file__).resolve().parents[2] / "pcaps"
FIELDS = (*AWS_V2, "tcp-flags", "pkt-srcaddr", "pkt-dstaddr", "flow-direction")
DAY = 86_400 * SECOND


def logs() -> dict[str, bytes]:
    """Return the logs by their names, not compressed."""
    text = (PCAPS / "shop.yaml").read_text()
    cloud = load(text=text.replace("ports: 80-81,", 'ports: "80,8080",'))
    interfaces = {instance.name: instance.addresses for instance in cloud.instances}
    frames = frames_of([PCAPS / "shop.pcap"])
    lines = verdict_lines(cloud, PCAPS / "shop.pcap")[1]
    sent, blocked, often = [], set(), []
    for (time_ns, frame, _, link_type), line in zip(frames, lines, strict=True):
        if line["verdict"] == "moot":
            continue
        sent.append((time_ns, frame, link_type))
        for side in ("egress", "ingress"):
            if line[side] and line[side]["verdict"] == "deny":
                blocked.add((time_ns % DAY, line[side]["instance"]))
        # Neither pings and traceroute, nor the connection that is older than the recording.
        if line["protocol"] in ("tcp", "udp") and not {line["sport"], line["dport"]} & {33434, 33435, 48234}:
            often.append(sent[-1])
    logged = Logged(60, blocked=lambda packet, interface, direction: (packet.time_ns % DAY, interface) in blocked)
    month = [(time_ns + day * DAY, frame, link_type) for day in range(31) for time_ns, frame, link_type in often]
    lines_of_month = write_aws(month, interfaces, logged, fields=FIELDS).splitlines(keepends=True)
    return {
        "shop.aws.log": write_aws(sent, interfaces, logged, fields=FIELDS),
        "shop.month.log": b"".join(line for line in lines_of_month if b"NODATA" not in line),
    }


if __name__ == "__main__":
    for name, content in logs().items():
        if name == "shop.month.log":
            name, content = f"{name}.gz", gzip.compress(content, mtime=0)
        (PCAPS / name).write_bytes(content)
