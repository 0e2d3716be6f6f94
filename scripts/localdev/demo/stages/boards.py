"""The template's three dashboards, drawn from what the demo left in metrics and logs."""

import time
from pathlib import Path

from localdev.cloud import dashboards
from localdev.demo.stage import Evidence, Stage
from localdev.demo.stages.handlers import EMOTIONS, TURBINE_LOGS

API = "AWS/ApiGateway"
NAMES = ("edgeml-emotions", "edgeml-turbine", "edgeml-live-inference")
PERIOD_S = 2  # a run is too short for the dashboards' own minutes


class Dashboards(Stage):
    name = "dashboards"
    title = "the three dashboards as pictures"
    needs = ("emotions", "edge_logs", "live_inference")

    def begin(self) -> None:
        self._begun = time.time()
        self._pictures: list[Path] = []
        self._sources: dict[str, int] = {}

    def finish(self) -> None:
        aws, end = self.world.cloud.aws, time.time()
        self.world.cloud.drain()
        for namespace in (EMOTIONS, API):
            metrics = aws.client("cloudwatch").list_metrics(Namespace=namespace)["Metrics"]
            self._sources[namespace] = len({metric["MetricName"] for metric in metrics})
        self._sources[TURBINE_LOGS] = len(dashboards.events(aws, TURBINE_LOGS, self._begun, end))
        for name in NAMES:
            path = self.world.output / f"{name}.png"
            dashboards.draw(aws, name, self._begun, end, path, PERIOD_S)
            self._pictures.append(path)

    def evidence(self) -> Evidence:
        figures = {"drawn_from": self._sources, "pictures": [str(path) for path in self._pictures]}
        ok = all(self._sources.values()) and all(path.stat().st_size for path in self._pictures)
        return Evidence(ok, figures, "expected data for each of the dashboards")
