"""`scripts/bench`: runs benchmark modules and prints their rows; exit code 1 if a bar is not met."""

import argparse
import importlib
import os
import platform
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Row

HERE = Path(__file__).resolve().parent


def names() -> list[str]:
    """Modules of this folder that have a `run`."""
    found = [path.stem for path in sorted(HERE.glob("*.py")) if "\ndef run(" in path.read_text(encoding="utf-8")]
    return [name for name in found if name != "run"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}; default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as a JSON list")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names())
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    console = Console()
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, Linux {platform.release()}"
    )
    rows: list[Row] = []
    for name in arguments.names or names():
        with console.status(f"{name} ..."):
            rows += importlib.import_module(f"benchmarks.{name}").run()
        console.print(table([row for row in rows if row.bench == name]))
        if arguments.json:
            arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    missed = [f"{row.bench} {row.metric}" for row in rows if not row.ok]
    console.print(f"missed: {', '.join(missed)}" if missed else f"all {len(rows)} bars met")
    return 1 if missed else 0


def table(rows: list[Row]) -> Table:
    shown = Table("benchmark", "metric", "value", "limit", "ratio", "bar", "")
    for row in rows:
        limit = "" if row.limit is None else f"{row.limit:,.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        verdict = "ok" if row.ok else "[red]missed"
        shown.add_row(row.bench, row.metric, f"{row.value:,.4g} {row.unit}", limit, ratio, row.bar, verdict)
    return shown


if __name__ == "__main__":
    raise SystemExit(main())
