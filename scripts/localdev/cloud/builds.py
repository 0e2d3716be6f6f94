"""CodeBuild: runs what moto only lists. Each build of the template's projects is a process with the project's role.

A stand-in: the buildspec's build phase runs on this machine, in this Python and from this work tree, instead of in a
container from the zip in S3 after the install phase. Variables, limits and permissions are the template's.
"""

import json
import logging
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localdev.cloud import iam
from localdev.cloud.aws import ACCOUNT, REGION, LocalAws, Request, Response
from localdev.cloud.template import ROOT, Resource, Stack

log = logging.getLogger(__name__)

CONCURRENCY = 2  # more wait, as in AWS for projects without a limit of their own
QUEUE_LIMIT = 10_000
STOP_TIMEOUT_S = 5.0
GUARDED = Path(__file__).with_name("guarded.py")


@dataclass(frozen=True)
class Build:
    """One build: `id` is `<project>:<uuid>`, as the build itself knows it by CODEBUILD_BUILD_ID."""

    id: str
    project: Resource
    overrides: dict[str, str]


class Builds:
    """Watches a LocalAws for StartBuild. Logs go to one file per build in `folder`."""

    def __init__(self, stack: Stack, aws: LocalAws, folder: Path) -> None:
        self.failed: list[str] = []  # ids
        self.asked: set[iam.Need] = set()  # what ended builds have asked of AWS, granted or not
        self._stack, self._aws, self._folder = stack, aws, folder
        self._projects = {project.name: project for project in stack.of_type("AWS::CodeBuild::Project")}
        self._builds: queue.Queue[Build | None] = queue.Queue(QUEUE_LIMIT)
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, name="builds", daemon=True) for _ in range(CONCURRENCY)]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Builds asked for that have not ended."""
        return self._builds.unfinished_tasks

    def log_file(self, build_id: str) -> Path:
        return self._folder / f"{build_id.replace(':', '-')}.log"

    def observe(self, request: Request, response: Response) -> None:
        if (request.service, request.operation) != ("codebuild", "StartBuild"):
            return
        asked = json.loads(request.body)
        if asked["projectName"] in self._projects:
            overrides = {each["name"]: each["value"] for each in asked.get("environmentVariablesOverride", [])}
            identity = json.loads(response.body)["build"]["id"]
            self._builds.put_nowait(Build(identity, self._projects[asked["projectName"]], overrides))

    def stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                os.killpg(process.pid, signal.SIGKILL)
        while not self._builds.empty():
            self._builds.get_nowait()
        for _ in self._threads:
            self._builds.put_nowait(None)
        for thread in self._threads:
            thread.join(STOP_TIMEOUT_S)

    def _work(self) -> None:
        while (build := self._builds.get()) is not None:
            try:
                self._run(build)
            finally:
                self._builds.task_done()

    def _run(self, build: Build) -> None:
        p = build.project.properties
        specification = yaml.safe_load((ROOT / p["Source"]["BuildSpec"]).read_text(encoding="utf-8"))
        timeout = float(p.get("TimeoutInMinutes", 60)) * 60
        with tempfile.TemporaryDirectory(prefix="build-") as scratch:
            asked = Path(scratch) / "asked.json"
            environment = self._environment(build, specification, Path(scratch), asked)
            good = all(
                self._command(command, environment, self.log_file(build.id), timeout)
                for command in specification["phases"]["build"]["commands"]
            )
            if asked.exists():
                self.asked |= {(action, resource) for action, resource in json.loads(asked.read_text())}
        if not good and not self._stopping:
            self.failed.append(build.id)
            log.error("build %s failed: %s", build.id, last_line(self.log_file(build.id)))

    def _environment(self, build: Build, specification: dict[str, Any], scratch: Path, asked: Path) -> dict[str, str]:
        """`python` is this Python, whose AWS calls the project's role must grant."""
        python = scratch / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P {shlex.quote(str(GUARDED))} "$@"\n')
        python.chmod(0o700)
        statements = self._stack.statements(build.project.properties["ServiceRole"])
        variables = build.project.properties["Environment"].get("EnvironmentVariables", [])
        return {
            **{name: str(value) for name, value in specification["env"].get("variables", {}).items()},
            **{variable["Name"]: str(variable["Value"]) for variable in variables},
            **build.overrides,
            **self._aws.environment(),
            "CODEBUILD_BUILD_ID": build.id,
            "PATH": f"{scratch}:{os.environ['PATH']}",
            "TMPDIR": str(scratch),
            "LOCAL_ROLE": json.dumps({"statements": statements, "region": REGION, "account": ACCOUNT}),
            "LOCAL_ASKED": str(asked),
        }

    def _command(self, command: str, environment: dict[str, str], log_file: Path, timeout: float) -> bool:
        with log_file.open("ab") as output, self._lock:
            if self._stopping:
                return False
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever started us, who then calls stop()
            )
            self._processes.add(process)
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP_TIMEOUT_S)
            return False
        finally:
            with self._lock:
                self._processes.discard(process)


def last_line(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
