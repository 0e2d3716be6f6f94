"""A wind turbine on a local MQTT broker: a fault switched on halfway must be flagged, and nothing before it."""

import json
import time
from pathlib import Path
from typing import Any

from localdev.cloud.broker import Broker
from localdev.demo.stage import Configuration, Evidence, Stage
from localdev.simulators.turbine import Fault, Publisher

RATE = 100  # readings per second: five times as fast as the real thing, so that a demo need not wait
FAULT_AT = 900  # readings
FAULT = Fault.VOLTAGE_DROP
SEED = 23
WITHIN = 12  # verdicts after the fault
VERDICT_EVERY_S = 0.25


class Anomaly(Stage):
    name = "anomaly"
    title = "an autoencoder on a wind turbine's sensors"

    def prepare(self) -> None:
        self._verdicts: list[tuple[float, bool, dict[str, Any]]] = []  # seconds, after the fault, result
        self._picture: Path | None = None
        self._started = time.monotonic()
        self._turbine: Publisher | None = None
        self._broker = Broker()
        self._broker.start()

    def configuration(self) -> Configuration:
        pipeline = {
            "source": {"type": "mqtt", "host": "127.0.0.1", "port": self._broker.port},
            "backend": {"type": "onnx", "model": "WindTurbine"},
            "verdict_every_s": VERDICT_EVERY_S,
            "telemetry": {"enabled": True},
        }
        return {"wind_turbine": {}, "inferencer": {"pipelines": {"turbine": pipeline}}}

    def begin(self) -> None:
        self.world.hear("edgeml/inference/turbine", self._verdict)
        schedule = {FAULT_AT: FAULT}
        self._turbine = Publisher("127.0.0.1", self._broker.port, rate=RATE, seed=SEED, schedule=schedule)
        self._started = time.monotonic()

    def _verdict(self, topic: str, payload: bytes) -> None:
        faulty = self._turbine is not None and self._turbine.fault != Fault.NONE
        self._verdicts.append((time.monotonic() - self._started, faulty, json.loads(payload)["results"]))

    def progress(self) -> str:
        faulty = any(after for _, after, _ in self._verdicts)
        flagged = sum(any(result["anomalies"]) for _, _, result in self._verdicts)
        return f"{len(self._verdicts)} verdicts, {flagged} flagged, {FAULT if faulty else 'healthy'}"

    def finish(self) -> None:
        if self._verdicts:
            self._picture = self.world.output / "turbine.png"
            plot(list(self._verdicts), self._picture)  # more may come while it is drawn

    def evidence(self) -> Evidence:
        before = [any(result["anomalies"]) for _, after, result in self._verdicts if not after]
        after = [any(result["anomalies"]) for _, after, result in self._verdicts if after]
        delay = after.index(True) if any(after) else None
        figures: dict[str, Any] = {
            "verdicts": len(self._verdicts),
            "flagged_before_fault": sum(before),
            "flagged_after_verdicts": delay,
            "plot": str(self._picture),
        }
        ok = bool(before) and not any(before) and delay is not None and delay <= WITHIN
        return Evidence(ok, figures, f"{FAULT} must be flagged within {WITHIN} verdicts, and nothing before it")

    def end(self) -> None:
        if self._turbine is not None:
            self._turbine.close()
        self._broker.stop()


def plot(verdicts: list[tuple[float, bool, dict[str, Any]]], path: Path) -> None:
    """Each feature's error over its threshold; flagged verdicts are marked, the time of the fault is shaded."""
    from matplotlib.figure import Figure

    names = ("roll", "pitch", "yaw", "wind", "rotor", "voltage")
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    times = [at for at, _, _ in verdicts]
    for index, name in enumerate(names):
        ratio = [result["values"][index] / result["thresholds"][index] for _, _, result in verdicts]
        axes.plot(times, ratio, label=name)
        marked = [
            (at, r) for at, r, (_, _, result) in zip(times, ratio, verdicts, strict=True) if result["anomalies"][index]
        ]
        axes.plot([at for at, _ in marked], [r for _, r in marked], "rx")
    faulty = [at for at, after, _ in verdicts if after]
    if faulty:
        axes.axvspan(faulty[0], times[-1], color="red", alpha=0.08, label=str(FAULT))
    axes.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
    axes.set(xlabel="seconds", ylabel="error / threshold", title="Wind turbine: reconstruction error by feature")
    axes.legend(ncols=4, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
