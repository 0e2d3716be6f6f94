"""`scripts/demo`: builds the components, deploys them to a local core beside a local cloud, feeds them, and reports.

Exit code 0 only if every stage showed its evidence. Nothing it starts outlives it.
"""

import argparse
import fcntl
import gc
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

HOME = Path(__file__).resolve().parents[3] / ".localdev" / "demo"
PARTS = ("output", "build", "gg")  # what a demo's home consists of
GARBAGE = 100_000  # new objects until Python looks for some: what starts here is a million, and stays


class _Names:
    """Of the stages, for who asks: whatever they need takes seconds to import."""

    def __iter__(self) -> Iterator[str]:
        from localdev.demo.stages import STAGES

        return iter([kind.name for kind in STAGES])


def main() -> int:
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 80)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    try:
        with _alone(options.home):
            from localdev.demo.run import run  # takes seconds, which who is refused need not wait

            for name in PARTS:
                if name != "output" or not options.stage:  # pictures of stages that are not chosen stay
                    shutil.rmtree(options.home / name, ignore_errors=True)
            evidence = run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130
    if options.json:
        stages = {name: {"ok": found.ok, **found.figures} for name, found in evidence.items()}
        options.json.write_text(json.dumps({"stages": stages}, indent=2) + "\n")
    failed = [name for name, found in evidence.items() if not found.ok]
    if failed:
        console.print(f"[red]no evidence: {', '.join(failed)}[/red]; logs in {options.home / 'gg' / 'logs'}")
    return 1 if failed else 0


def _interrupted(number: int, frame: object) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not cut the tidying short
    raise KeyboardInterrupt


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """SystemExit in one sentence where another demo is using `home`; the end of that process frees it."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f".{home.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(f"another demo is running in {home}: wait for it, or choose another --home") from None
        yield


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="how long to watch (%(default)s); below 12 the turbine has nothing to show",
    )
    parser.add_argument("--watch", action="store_true", help="keep all of it running after that, to look around")
    parser.add_argument("--headless", action="store_true", help="plain lines instead of a live table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the stages' figures")
    parser.add_argument("--home", type=Path, default=HOME, help="folder that is emptied and used (%(default)s)")
    parser.add_argument("--profile", choices=["java", "lite"], default="java", help="which nucleus the core acts as")
    parser.add_argument(
        "--stage",
        action="append",
        choices=_Names(),
        metavar="STAGE",
        help="only these and what they need (repeatable): %(choices)s",
    )
    options = parser.parse_args()
    if options.home.exists() and (others := {path.name for path in options.home.iterdir()} - {*PARTS}):
        parser.error(f"{options.home} is no demo's home, it holds {', '.join(sorted(others))}")
    return options


if __name__ == "__main__":
    gc.set_threshold(GARBAGE)
    ended = main()
    gc.freeze()  # else Python looks through all of it again and again before the process ends
    raise SystemExit(ended)
