"""What scripts/deploy shows and asks."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.prompt import Confirm
from rich.table import Table

from deployment.configuration import Update, leaves
from deployment.revision import Components
from deployment.watch import PENDING

Show = Callable[[Counter[str]], None]


class Screen:
    """Texts are shown as they are: names and values may hold what rich would take for markup."""

    def __init__(self) -> None:
        self._out = Console(markup=False, highlight=False)
        self._err = Console(markup=False, highlight=False, stderr=True)

    def say(self, text: str) -> None:
        self._out.print(text, soft_wrap=True)

    def warn(self, text: str) -> None:
        self._err.print(text, style="yellow", soft_wrap=True)

    def fail(self, text: str) -> None:
        self._err.print(text, style="red", soft_wrap=True)

    def table(self, rows: Sequence[tuple[str, ...]], *columns: str, title: str = "") -> None:
        made = Table(*columns, title=title or None)
        for row in rows:
            made.add_row(*row)
        self._out.print(made)

    def confirmed(self) -> bool:
        try:
            return Confirm.ask("Deploy?", console=self._out, default=False)
        except EOFError:  # nobody is there to answer
            return False

    @contextmanager
    def progress(self, expected: int) -> Iterator[Show]:
        """Gives what shows devices by status: a bar, or a line for each change where there is no terminal."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
        )
        shown = ""
        with Progress(*columns, console=self._out, disable=not self._out.is_terminal) as bar:
            task = bar.add_task("devices", total=expected)

            def show(statuses: Counter[str]) -> None:
                nonlocal shown
                text = ", ".join(f"{count} {status.lower()}" for status, count in sorted(statuses.items()))
                done = sum(count for status, count in statuses.items() if status not in PENDING)
                total = max(expected, statuses.total())
                bar.update(task, description=text or "no devices yet", completed=done, total=total)
                if bar.disable and text != shown:
                    self.say(f"{done} of {total} devices done: {text or 'none yet'}")
                shown = text

            yield show


def changes(old: Components, new: Components) -> list[tuple[str, ...]]:
    """Rows of name, old version, new version and what changes in the configuration; only components that change."""
    return [
        (
            name,
            old.get(name, {}).get("componentVersion", "-"),
            new.get(name, {}).get("componentVersion", "removed"),
            "\n".join(_configuration(old.get(name, {}), new[name])) if name in new else "",
        )
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _configuration(old: dict[str, object], new: dict[str, object]) -> Iterator[str]:
    before, after = Update.of(old), Update.of(new)
    known = dict(leaves(before.merge))
    for pointer in after.reset:
        if pointer not in before.reset:
            yield f"reset {pointer or 'everything'}"
    for pointer, value in leaves(after.merge):
        if pointer not in known:
            yield f"{pointer} = {json.dumps(value)}"
        elif known[pointer] != value:
            yield f"{pointer} = {json.dumps(value)} (was {json.dumps(known[pointer])})"
    if old.get("runWith") != new.get("runWith"):
        yield f"runs with {json.dumps(new.get('runWith'))}"
