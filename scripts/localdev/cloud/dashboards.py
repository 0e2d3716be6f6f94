"""Draws the CloudWatch dashboards of a local cloud as pictures, from its metrics and logs."""

import ast
import json
import operator
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from moto.cloudwatch.models import MetricDatum, cloudwatch_backends

from localdev.cloud import insights
from localdev.cloud.aws import ACCOUNT, REGION, LocalAws

if TYPE_CHECKING:  # it takes half a second, which who draws nothing need not
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]
COLUMNS = 24  # of CloudWatch's grid
WHITE, MARGIN = 255, 10  # pixels are left around what is drawn
_PER = re.compile(r"per (\d+ )?(second|minute|hour)s?")  # in titles
STATISTICS: dict[str, Callable[[Values], float]] = {
    "Average": lambda v: float(v.mean()),
    "Sum": lambda v: float(v.sum()),
    "Maximum": lambda v: float(v.max()),
    "SampleCount": lambda v: float(len(v)),
    "p50": lambda v: float(np.percentile(v, 50)),
    "p99": lambda v: float(np.percentile(v, 99)),
}
MAX_LABELS = 8  # below the bars of a widget: more would overlap
OPERATORS: dict[type[ast.operator], Callable[[Values, Values], Values]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def draw(aws: LocalAws, name: str, start: float, end: float, path: Path, period_s: int = 0) -> dict[str, int]:
    """Writes the dashboard `name` for the time from `start` to `end` (Unix seconds) to a PNG file.

    `period_s` replaces the widgets' own intervals of a minute and more, which a short run would not fill; titles say
    so. Returns how many data points each widget shows, by title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = figure(aws, name, start, end, period_s)
    canvas: Any = FigureCanvasAgg(drawn)  # untyped in matplotlib
    canvas.draw()
    if not cv2.imwrite(str(path), _cropped(np.asarray(canvas.buffer_rgba())[..., 2::-1])):
        raise OSError(f"{path} could not be written")
    return {axes.get_title(): points(axes) for axes in drawn.axes}


def _cropped(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Without the white around it: short tables leave the rest of their widgets blank."""
    rows, columns = (np.flatnonzero((picture < WHITE).any(axis=(other, 2))) for other in (1, 0))
    if not len(rows):
        return picture
    top, left = max(rows[0] - MARGIN, 0), max(columns[0] - MARGIN, 0)
    return picture[top : rows[-1] + MARGIN, left : columns[-1] + MARGIN]


def points(axes: "Axes") -> int:
    """Data points that are to be seen: of lines, bars, or rows of a table."""
    values = [np.asarray(line.get_ydata(), np.float64) for line in axes.get_lines()]
    values += [np.array([bar.get_height() for bar in bars]) for bars in axes.containers]
    rows = {row for table in axes.tables for row, _ in table.get_celld() if row > 0}  # the first names the columns
    return sum(int(np.isfinite(series).sum()) for series in values) + len(rows)


def figure(aws: LocalAws, name: str, start: float, end: float, period_s: int = 0) -> "Figure":
    """What `draw` writes, with an Axes per widget."""
    from matplotlib.dates import DateFormatter
    from matplotlib.figure import Figure

    body = json.loads(aws.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"])
    rows = max(widget["y"] + widget["height"] for widget in body["widgets"])
    drawn = Figure(figsize=(16, rows * 16 / COLUMNS))
    for widget in body["widgets"]:
        axes = drawn.add_axes(_place(widget, rows))
        properties = _with_period(widget["properties"], period_s)
        axes.set_title(properties["title"])
        if widget["type"] == "metric":
            _metrics(axes, properties, start, end)
        else:
            _log(axes, properties, events(aws, insights.source(properties["query"]), start, end))
        if properties["view"] == "timeSeries":
            axes.set_xlim(_when(start), _when(end))  # type: ignore[arg-type]  # matplotlib takes datetimes
            axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]
    drawn.suptitle(f"{name} (local cloud)")
    return drawn


def _place(widget: dict[str, Any], rows: int) -> tuple[float, float, float, float]:
    """Left, bottom, width, height of a widget in fractions of the picture, with room for titles and ticks."""
    x, y, width, height = (widget[key] for key in ("x", "y", "width", "height"))
    bottom = 1 - (y + height) / rows
    return (x + 1) / COLUMNS, bottom + 0.7 / rows, (width - 1.5) / COLUMNS, (height - 1.7) / rows


def _with_period(properties: dict[str, Any], period_s: int) -> dict[str, Any]:
    if not period_s:
        return properties
    properties = properties | {"title": _PER.sub(f"per {period_s} s", properties["title"])}
    if "query" in properties:
        return properties | {"query": re.sub(r"bin\(\w+\)", f"bin({period_s}s)", properties["query"])}
    return properties | {"period": period_s}


def events(aws: LocalAws, group: str, start: float, end: float) -> list[insights.Event]:
    """Every event of a log group in a time, oldest first."""
    pages = (
        aws.client("logs")
        .get_paginator("filter_log_events")
        .paginate(logGroupName=group, startTime=int(start * 1000), endTime=int(end * 1000))
    )
    found = [
        insights.Event(event["timestamp"] / 1000, event["logStreamName"], event["message"])
        for page in pages
        for event in page["events"]
    ]
    return sorted(found, key=lambda event: event.timestamp)


def _metrics(axes: "Axes", properties: dict[str, Any], start: float, end: float) -> None:
    drawn: list[tuple[str, Values]] = []
    by_id: dict[str, Values] = {}
    expressions: list[tuple[str, str]] = []
    period = properties["period"]
    times = np.arange(start // period * period, end + period, period)
    previous: list[Any] = []
    for entry in properties["metrics"]:
        options = entry[-1] if isinstance(entry[-1], dict) else {}
        if "expression" in options:
            expressions.append((options["expression"], options["label"]))
            continue
        previous = _written_out([item for item in entry if not isinstance(item, dict)], previous)
        series = statistics(previous, options.get("stat", properties.get("stat", "Average")), times, period)
        by_id[options.get("id", "")] = series
        if options.get("visible", True):
            drawn.append((options.get("label", previous[1]), series))
    drawn += [(label, evaluated(expression, by_id)) for expression, label in expressions]
    at = [_when(t) for t in times]
    for label, series in drawn:
        axes.plot(at, series, marker=".", label=label)  # type: ignore[arg-type]  # matplotlib takes datetimes
    axes.legend(fontsize="small")
    left = properties.get("yAxis", {}).get("left", {})
    axes.set_ylabel(left.get("label", ""))
    axes.set_ylim(left.get("min"), left.get("max"))


def _written_out(entry: list[Any], previous: list[Any]) -> list[Any]:
    """CloudWatch's shorthand: "." repeats one item of the entry before, "..." all of its first items."""
    if entry and entry[0] == "...":
        return [*previous[: len(previous) - len(entry) + 1], *entry[1:]]
    return [previous[i] if item == "." else item for i, item in enumerate(entry)]


def statistics(metric: list[Any], statistic: str, times: Values, period: float) -> Values:
    """One value per interval that begins at one of `times`, NaN where there is no data.

    `metric` is namespace, name and dimensions, names and values in turn. Read from moto's memory: its API cannot
    compute percentiles.
    """
    namespace, name, *pairs = metric
    dimensions = set(zip(pairs[::2], pairs[1::2], strict=True))
    points = [
        (_unix(datum.timestamp), datum.value)
        for datum in cloudwatch_backends[ACCOUNT][REGION].metric_data
        if isinstance(datum, MetricDatum)
        and (datum.namespace, datum.name) == (namespace, name)
        and {(d.name, d.value) for d in datum.dimensions} == dimensions
    ]
    result = np.full(len(times), np.nan)
    if points:
        at, values = np.array(points, np.float64).T
        for i, begin in enumerate(times):
            inside = values[(at >= begin) & (at < begin + period)]
            if len(inside):
                result[i] = STATISTICS[statistic](inside)
    return result


def evaluated(expression: str, series: dict[str, Values]) -> Values:
    """Metric math of numbers, ids, + - * / and brackets."""

    def value(node: ast.expr) -> Any:
        match node:
            case ast.BinOp(left, op, right):
                return OPERATORS[type(op)](value(left), value(right))
            case ast.Name(name):
                return series[name]
            case ast.Constant(number):
                return number
        raise ValueError(f"metric math not implemented here: {expression}")

    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(value(ast.parse(expression, mode="eval").body), np.float64)


def _log(axes: "Axes", properties: dict[str, Any], found: list[insights.Event]) -> None:
    rows = insights.run(properties["query"], found)
    if not rows:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", transform=axes.transAxes)
        return
    names = list(rows[0])
    if properties["view"] == "table":
        axes.axis("off")
        cells = [[_shown(row[name]) for name in names] for row in rows[:12]]
        axes.table(cells, colLabels=names, loc="upper center", cellLoc="left").auto_set_column_width(range(len(names)))
        return
    at = [_when(row[names[0]]) for row in rows]
    bottom = np.zeros(len(rows))
    for name in names[1:]:
        values = np.array([np.nan if row[name] is None else float(row[name]) for row in rows])
        if properties["view"] == "bar":
            axes.bar([f"{t:%H:%M:%S}" for t in at], values, bottom=bottom, label=name)
            bottom += values
        else:
            axes.plot(at, values, marker=".", label=name)  # type: ignore[arg-type]  # matplotlib takes datetimes
    if properties["view"] == "bar":
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(MAX_LABELS, integer=True))
    axes.legend(fontsize="small")


def _shown(value: object) -> str:
    """A cell of a table: Unix seconds, as messages carry them, are a time."""
    text = str(value)
    return f"{_when(float(text)):%Y-%m-%d %H:%M:%S}" if re.fullmatch(r"1[0-9]{9}(\.[0-9]+)?", text) else text


def _when(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _unix(at: datetime) -> float:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
