"""What the demo prints: progress while it runs, a summary at the end."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from localdev.demo.stage import Evidence, Stage
from localdev.workspace import ROOT

HEADLESS_EVERY_S = 5.0


class Show(Protocol):
    def update(self, left_s: float) -> None: ...


class _Lines:
    """Progress for a log: a line per stage every few seconds."""

    def __init__(self, console: Console, stages: Sequence[Stage]) -> None:
        self._console, self._stages = console, stages
        self._due = time.monotonic() + HEADLESS_EVERY_S

    def update(self, left_s: float) -> None:
        if time.monotonic() >= self._due:
            self._due += HEADLESS_EVERY_S
            for stage in self._stages:
                self._console.print(f"  {stage.name}: {stage.progress()}", highlight=False)


class _Table:
    """Progress for a terminal: a table that changes in place."""

    def __init__(self, live: Live, stages: Sequence[Stage]) -> None:
        self._live, self._stages = live, stages

    def update(self, left_s: float) -> None:
        table = Table(title=f"greengrass-edge-ml, {left_s:.0f} s to go", title_justify="left")
        for column in ("stage", "what", "so far"):
            table.add_column(column)
        for stage in self._stages:
            table.add_row(stage.name, stage.title, stage.progress())
        self._live.update(table, refresh=True)


@contextmanager
def progress(console: Console, stages: Sequence[Stage], *, headless: bool) -> Iterator[Show]:
    if headless:
        yield _Lines(console, stages)
    else:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            yield _Table(live, stages)


def summary(console: Console, stages: Sequence[Stage], evidence: Mapping[str, Evidence]) -> None:
    """A paragraph a stage, as wide as the terminal: figures are many and of any length."""
    console.print("What the demo saw", style="bold")
    for stage in stages:
        shown = evidence[stage.name]
        verdict = "[green]ok[/green]" if shown.ok else "[red]no[/red]"
        console.print(f"{verdict}  {stage.name}", highlight=False)
        if not shown.ok:
            console.print(Padding(f"[red]{escape(shown.missing)}[/red]", (0, 0, 0, 4)))
        text = ", ".join(f"{key} {_short(value)}" for key, value in shown.figures.items())
        console.print(Padding(Text(text), (0, 0, 0, 4)))


def _short(value: object) -> str:
    """Paths within the project as a person would type them."""
    return str(value).replace(f"{ROOT}/", "")
