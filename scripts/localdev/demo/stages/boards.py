"""The template's three dashboards, drawn from what the demo left in metrics and logs."""

import time
from pathlib import Path

from localdev.cloud import dashboards
from localdev.demo.stage import Evidence, Stage

NAMES = ("edgeml-emotions", "edgeml-turbine", "edgeml-live-inference")
PERIOD_S = 2  # a run is too short for the dashboards' own minutes


class Dashboards(Stage):
    name = "dashboards"
    title = "the three dashboards as pictures"
    needs = ("emotions", "edge_logs", "live_inference")

    def begin(self) -> None:
        self._begun = time.time()
        self._pictures: list[Path] = []
        self._points: dict[str, dict[str, int]] = {}  # by dashboard and widget

    def finish(self) -> None:
        aws, end = self.world.cloud.aws, time.time()
        self.world.cloud.drain()
        for name in NAMES:
            path = self.world.output / f"{name}.png"
            self._points[name] = dashboards.draw(aws, name, self._begun, end, path, PERIOD_S)
            self._pictures.append(path)

    def evidence(self) -> Evidence:
        points = {name: sum(shown.values()) for name, shown in self._points.items()}
        figures = {"points": points, "pictures": [str(path) for path in self._pictures]}
        empty = without_points(self._points)
        return Evidence(not empty, figures, f"expected data in each widget, not in {', '.join(empty)}")


def without_points(points: dict[str, dict[str, int]]) -> list[str]:
    """The widgets that show nothing, of those by dashboard."""
    return [f"{name}: {title}" for name, shown in points.items() for title, n in shown.items() if not n]
