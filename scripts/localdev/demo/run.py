"""The demo itself: everything is started, its stages are watched, and what they saw is told."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from localdev.cloud import LocalCloud
from localdev.cloud.cloud import TEMPLATE
from localdev.core import LocalCore
from localdev.core.client import publish_credentials
from localdev.core.profiles import CLI
from localdev.core.resolve import BUILTIN_VERSIONS
from localdev.demo import show
from localdev.demo.observer import Observer
from localdev.demo.stage import SIGNING_KEY, THING, Configuration, Evidence, Stage, World, merged
from localdev.demo.stages import STAGES
from localdev.demo.stages.monitor import Monitor
from localdev.workspace import Gathered, Workspace

SHARED_MEMORY = "/dev/shm"  # noqa: S108  (where frame rings belong)
DEPLOY_TIMEOUT_S = 60
TICK_S = 0.25


def run(options: argparse.Namespace, console: Console) -> dict[str, Evidence]:
    """The whole demo, in a home that holds at most pictures; the stages' evidence by name."""
    home: Path = options.home
    with ExitStack() as running:
        (output := home / "output").mkdir(parents=True, exist_ok=True)
        console.print("starting a local cloud (a stand-in for AWS, for development)")
        cloud = running.enter_context(LocalCloud(TEMPLATE, {"SigningKeySecret": SIGNING_KEY, "ThingPrefix": ""}))
        rings = Path(tempfile.mkdtemp(prefix=f"edgeml-demo-{os.getpid()}-", dir=SHARED_MEMORY))
        running.callback(_remove, rings, console)
        iot = Observer(cloud.mqtt_address)
        running.callback(iot.close)
        world = World(cloud, home / "gg", output, rings, iot)
        stages = [kind(world) for kind in _chosen(options.stage and [*options.stage, *options.watch * [Monitor.name]])]
        for stage in stages:
            running.callback(stage.end)
            stage.prepare()
        configuration: Configuration = {}
        for stage in stages:
            configuration = merged(configuration, stage.configuration())
        console.print(f"building {', '.join(configuration)}")
        workspace = Workspace()
        build = workspace.gather(configuration, home / "build")
        with console.status("installing the components' packages") as status:

            def installing(text: str) -> None:
                status.update(f"installing packages, {text} (the first time, this takes a few minutes)")

            workspace.lend_venvs(configuration, home / "gg", progress=installing)
        console.print("starting a local Greengrass core (a stand-in, for development)")
        settings: dict[str, Any] = {"thing_name": THING, "mqtt_url": cloud.mqtt_url, "env": cloud.environment()}
        # The simulated serial ports, pictures and rings are open to who started the demo, not to ggc_user.
        world.core = running.enter_context(
            LocalCore(home / "gg", profile=options.profile, secrets=world.secrets, user="root", **settings)
        )
        console.print(world.core.note, highlight=False)
        publish_credentials(world.core.root, world.core.socket, world.core.token(CLI))
        _deploy(world, build, configuration, console)
        for stage in stages:
            stage.begin()
        _watch(options, console, stages)
        for stage in stages:
            stage.finish()
        evidence = {stage.name: stage.evidence() for stage in stages}
        if options.watch:
            _tell(console, stages, evidence, home)
            _stay(console, stages)
    if not options.watch:
        _tell(console, stages, evidence, home)
    return evidence


def _tell(console: Console, stages: Sequence[Stage], evidence: Mapping[str, Evidence], home: Path) -> None:
    show.summary(console, stages, evidence)
    console.print(f"pictures in {home / 'output'}, logs in {home / 'gg' / 'logs'}", highlight=False)


def _stay(console: Console, stages: Sequence[Stage]) -> None:
    """Keep everything running until Ctrl-C, which is no failure here."""
    for page in (stage for stage in stages if isinstance(stage, Monitor)):
        console.print(f"look around: {page.address}", highlight=False, soft_wrap=True)
        console.print(f"the password to sign in is in\n{page.password_file}", highlight=False, soft_wrap=True)
    console.print("everything goes on until Ctrl-C")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _chosen(names: Sequence[str] | None) -> list[type[Stage]]:
    """The stages of these names and those they need, in the order of the summary; without names, all."""
    kinds = {kind.name: kind for kind in STAGES}
    wanted, open_names = set[str](), list(names or kinds)
    while open_names:
        name = open_names.pop()
        if name not in wanted:
            wanted.add(name)
            open_names += kinds[name].needs
    return [kind for kind in STAGES if kind.name in wanted]


def _remove(rings: Path, console: Console) -> None:
    """Components take their rings away; whatever one has left is a fault to be told."""
    if left := [path.name for path in rings.iterdir()]:
        console.print(f"[red]left in {rings}: {', '.join(left)}[/red]")
    shutil.rmtree(rings)


def _watch(options: argparse.Namespace, console: Console, stages: Sequence[Stage]) -> None:
    end = time.monotonic() + options.seconds
    with show.progress(console, stages, headless=options.headless) as display:
        while (left := end - time.monotonic()) > 0:
            for stage in stages:
                stage.tick()
            display.update(left)
            time.sleep(TICK_S)


def _deploy(world: World, build: Gathered, configuration: Configuration, console: Console) -> None:
    """Deploy with greengrass-cli's words, and wait for the result as greengrass-cli's users do."""
    update = {build.names[package]: {"MERGE": values} for package, values in configuration.items() if values}
    update_file = build.recipes.parent / "update-config.json"
    update_file.write_text(json.dumps(update, indent=2))
    versions = {name: build.versions[name] for name in build.names.values()}
    if world.secrets:
        versions["aws.greengrass.SecretManager"] = BUILTIN_VERSIONS["aws.greengrass.SecretManager"]
    merge = ",".join(f"{name}={version}" for name, version in versions.items())
    words = ["deployment", "create", "--recipeDir", str(build.recipes), "--artifactDir", str(build.artifacts)]
    words += ["--merge", merge, "--update-config", str(update_file)]
    console.print(f"scripts/core {' '.join(words)}", highlight=False, soft_wrap=True)
    identity = _core_cli(world.core.root, words).rsplit(maxsplit=1)[-1]
    deadline = time.monotonic() + DEPLOY_TIMEOUT_S
    with console.status("deploying"):
        while "SUCCEEDED" not in (status := _core_cli(world.core.root, ["deployment", "status", "-i", identity])):
            if "FAILED" in status or time.monotonic() > deadline:
                raise SystemExit(f"the deployment failed:\n{status}\nlogs in {world.core.root / 'logs'}")
            time.sleep(0.5)


def _core_cli(root: Path, words: list[str]) -> str:
    command = [sys.executable, "-m", "localdev.core", *words, "--root", str(root)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise SystemExit(f"scripts/core {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
