"""Count what an engine decides, by verdict, reason and rule, in the text format of Prometheus."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sgfast

SHOP = Path(sys.argv[1] if len(sys.argv) > 1 else "pcaps")


class Metrics:
    """The packets of one engine by the numbers of their verdicts, reasons and rules."""

    def __init__(self, engine: sgfast.Engine) -> None:
        self.engine = engine
        self.reasons = np.zeros((len(sgfast.VERDICTS), len(sgfast.REASONS)), int)
        self.rules = np.zeros(len(engine.rules), int)

    def add(self, results: NDArray[Any]) -> None:
        np.add.at(self.reasons, (results["verdict"], results["reason"]), 1)
        for side in ("egress", "ingress"):
            rules = results[side]["rule"]
            np.add.at(self.rules, rules[rules >= 0], 1)     # -1: no rule decided

    def text(self) -> str:
        lines = [
            f'packets_total{{verdict="{sgfast.VERDICTS[verdict]}",reason="{sgfast.REASONS[reason] or ""}"}} {number}'
            for (verdict, reason), number in np.ndenumerate(self.reasons) if number
        ]  # fmt: skip
        rules = zip(self.engine.rules, self.rules, strict=True)
        lines += [f'rule_packets_total{{rule="{rule.id}"}} {number}' for rule, number in rules if number]
        lines += [f"open_connections {self.engine.open_connections}"]
        lines += [f"max_connections {self.engine.policy.settings.max_connections}"]
        return "\n".join(lines)


def main() -> None:
    engine = sgfast.Engine(SHOP / "shop.yaml")
    metrics = Metrics(engine)
    openers = [
        sgfast.header("198.51.100.7", "10.0.0.5", "tcp", sport=1024 + n, dport=80 if n % 4 else 22, time_ns=n)
        for n in range(1000)
    ]
    for batch in np.array_split(np.concatenate(openers), 10):
        metrics.add(engine.process(batch))
    text = metrics.text()
    for line in (
        'packets_total{verdict="allow",reason="rule"} 750', 'packets_total{verdict="deny",reason="no-rule"} 250',
        'rule_packets_total{rule="web-http-4"} 750', "open_connections 750", "max_connections 4000000",
    ):  # fmt: skip
        assert line in text.splitlines(), text
    print(text)


main()
