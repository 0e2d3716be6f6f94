"""`scripts/demo`: builds the components, deploys them to a local core beside a local cloud, feeds them, and reports.

Exit code 0 only if every stage showed its evidence. Nothing it starts outlives it.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from localdev import workspace
from localdev.cloud import LocalCloud
from localdev.cloud.cloud import TEMPLATE
from localdev.core import LocalCore
from localdev.core.client import publish_credentials
from localdev.core.profiles import CLI
from localdev.demo import show
from localdev.demo.stage import THING, Configuration, Evidence, Stage, World, merged
from localdev.demo.stages import STAGES

HOME = workspace.ROOT / ".localdev" / "demo"
DEPLOY_TIMEOUT_S = 900  # the first deployment installs the components' packages
TICK_S = 0.25


def main() -> int:
    options = _options()
    console = Console(stderr=False, width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        evidence = run(options, console)
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return 130
    if options.json:
        stages = {name: {"ok": found.ok, **found.figures} for name, found in evidence.items()}
        options.json.write_text(json.dumps({"stages": stages}, indent=2) + "\n")
    failed = [name for name, found in evidence.items() if not found.ok]
    if failed:
        console.print(f"[red]no evidence: {', '.join(failed)}[/red]; logs in {HOME / 'gg' / 'logs'}")
    return 1 if failed else 0


def run(options: argparse.Namespace, console: Console) -> dict[str, Evidence]:
    """The whole demo; the stages' evidence by name."""
    output = HOME / "output"
    _clear(HOME)
    output.mkdir(parents=True)
    with ExitStack() as running:
        console.print("starting a local cloud (a stand-in for AWS, for development)")
        cloud = running.enter_context(LocalCloud(TEMPLATE))
        world = World(cloud, output)
        stages = [kind(world) for kind in STAGES if not options.stage or kind.name in options.stage]
        for stage in stages:
            stage.prepare()
        configuration: Configuration = {}
        for stage in stages:
            configuration = merged(configuration, stage.configuration())
        console.print(f"building {', '.join(configuration)}")
        build = workspace.Workspace().gather(configuration, HOME / "build")
        console.print("starting a local Greengrass core (a stand-in, for development)")
        settings: dict[str, Any] = {"thing_name": THING, "mqtt_url": cloud.mqtt_url, "env": cloud.environment()}
        world.core = running.enter_context(LocalCore(HOME / "gg", profile=options.profile, **settings))
        publish_credentials(world.core.root, world.core.socket, world.core.token(CLI))
        for stage in reversed(stages):
            running.callback(stage.end)
        _deploy(world.core, build, configuration, console)
        for stage in stages:
            stage.begin()
        _watch(options, console, stages)
        for stage in stages:
            stage.finish()
        evidence = {stage.name: stage.evidence() for stage in stages}
    show.summary(console, stages, evidence)
    console.print(f"pictures in {output}, logs in {HOME / 'gg' / 'logs'}", highlight=False)
    return evidence


def _watch(options: argparse.Namespace, console: Console, stages: Sequence[Stage]) -> None:
    end = time.monotonic() + options.seconds
    with show.progress(console, stages, headless=options.headless) as display:
        while (left := end - time.monotonic()) > 0:
            display.update(left)
            time.sleep(TICK_S)


def _deploy(core: LocalCore, build: workspace.Gathered, configuration: Configuration, console: Console) -> None:
    """Deploy with greengrass-cli's words, and wait for the result as greengrass-cli's users do."""
    update = {build.names[package]: {"MERGE": values} for package, values in configuration.items() if values}
    update_file = HOME / "build" / "update-config.json"
    update_file.write_text(json.dumps(update, indent=2))
    merge = ",".join(f"{name}={build.versions[name]}" for name in build.names.values())
    words = ["deployment", "create", "--recipeDir", str(build.recipes), "--artifactDir", str(build.artifacts)]
    words += ["--merge", merge, "--update-config", str(update_file)]
    console.print(f"scripts/core {' '.join(words)}", highlight=False, soft_wrap=True)
    identity = _core_cli(core.root, words).rsplit(maxsplit=1)[-1]
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    with console.status("deploying (the first time, the components' packages are installed: a few minutes)"):
        while "SUCCEEDED" not in (status := _core_cli(core.root, ["deployment", "status", "-i", identity])):
            if "FAILED" in status or time.monotonic() > deadline:
                raise SystemExit(f"the deployment failed:\n{status}\nlogs in {core.root / 'logs'}")
            time.sleep(1)


def _core_cli(root: Path, words: list[str]) -> str:
    command = [sys.executable, "-m", "localdev.core", *words, "--root", str(root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise SystemExit(f"scripts/core {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _clear(home: Path) -> None:
    """Remove what the last run left, but for the components' virtual environments."""
    for path in [*home.glob("output"), *home.glob("build"), *home.glob("gg/*"), *home.glob("gg/work/*/*")]:
        if path.name in ("work", "venv"):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long the components are watched (%(default)s)")
    parser.add_argument("--headless", action="store_true", help="plain lines instead of a live table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the stages' figures")
    parser.add_argument("--profile", choices=["java", "lite"], default="java", help="which nucleus the core acts as")
    parser.add_argument(
        "--stage", action="append", choices=[kind.name for kind in STAGES], help="only these stages (repeatable)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
