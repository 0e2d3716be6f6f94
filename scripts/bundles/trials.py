"""What was tried: a table, and a picture of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from bundles.quantize import Plan

MUCH = 1.15  # faster than a more accurate variant, to be preferred
KEPT, SLOW, LOST = "kept", "not faster", "lost too much"


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant that was tried. `gain` is how many times as fast as fp32 it is, where it ran on this very machine."""

    isa: str
    method: str
    scales: str
    floats: int
    accuracy: dict[str, float]
    loss: float
    gain: float | None
    verdict: str = ""


HEAD = ("variant", "method", "scale per", "in float", "agreement", "loss", "x as fast", "")


def cells(row: Row) -> tuple[str, ...]:
    agreement = ", ".join(f"{name} {value:.4f}" for name, value in row.accuracy.items())
    gain = "-" if row.gain is None else f"{row.gain:.2f}"
    return row.isa, row.method, row.scales, str(row.floats), agreement, f"{row.loss:.4f}", gain, row.verdict


def table(rows: Sequence[Row]) -> str:
    lines = [HEAD, *map(cells, rows)]
    widths = [max(len(each[column]) for each in lines) for column in range(len(HEAD))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(each, widths, strict=True)) for each in lines)


def chosen(tried: Sequence[tuple[Row, Plan]]) -> tuple[Row, Plan]:
    """The most accurate, by all measures; one scale a tensor where that is good enough and much faster."""

    def rank(pair: tuple[Row, Plan]) -> tuple[float, ...]:
        return pair[0].loss, *(-value for value in pair[0].accuracy.values())

    best = min(tried, key=rank)
    quick = [p for p in tried if p[0].verdict == KEPT and (p[0].gain or 0) > MUCH * (best[0].gain or 0)]
    return min(quick, key=rank) if quick else best


def plotted(rows: Sequence[Row], path: Path) -> None:
    """Loss over speed; nothing where matplotlib is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not there")
        return
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row.gain is not None:
            label = f"{row.method}, {row.scales}, {row.floats} in float: {row.verdict}"
            axes.plot(row.gain, row.loss, "o" if row.verdict == KEPT else "x", label=label)
    axes.set(xlabel="times as fast as fp32", ylabel="loss of agreement with fp32")
    figure.legend(loc="outside right upper", fontsize=7)
    figure.savefig(path)
