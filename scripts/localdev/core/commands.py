"""What each word of greengrass-cli does against a running core. Each takes the parsed options."""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localdev.core.client import CliError, connect, published
from localdev.core.config_store import doubles
from localdev.core.log_filter import Filter
from localdev.core.operations.configuration import CORE

_FOLLOW_SECONDS = 0.2
_WAIT_SECONDS = 0.2
_STOP_SECONDS = 60.0


def create_deployment(options: argparse.Namespace) -> int:
    """`deployment create`; with --wait the exit code is 1 if it failed."""
    request = {
        "root_component_versions_to_add": _pairs("--merge", options.merge, "NAME=VERSION"),
        "root_components_to_remove": _split(options.remove),
        "component_to_configuration": _read_json("--update-config", options.update_config),
        "component_to_run_with_info": _run_with(options),
        "recipe_directory_path": _absolute(options.recipe_dir),
        "artifacts_directory_path": _absolute(options.artifact_dir),
        "group_name": options.group_id,
        "failure_handling_policy": options.failure_handling_policy,
    }
    with connect(options.root) as client:
        deployment_id = client.create_local_deployment(**request).deployment_id
        print(f"Local deployment submitted! Deployment Id: {deployment_id}", flush=True)
        return 0 if options.wait is None else _wait(client, deployment_id, options.wait)


def _wait(client: Any, deployment_id: str, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while True:
        deployment = client.get_local_deployment_status(deployment_id=deployment_id).deployment
        if deployment.status in ("SUCCEEDED", "FAILED", "CANCELED"):
            _print_deployment(deployment)
            return int(deployment.status != "SUCCEEDED")
        if time.monotonic() > deadline:
            states = _describe(client)["states"]
            unsettled = ", ".join(f"{name} {state}" for name, state in states.items() if state not in _SETTLED)
            raise CliError(f"deployment {deployment_id} is {deployment.status} after {seconds:g} s: {unsettled}")
        time.sleep(_WAIT_SECONDS)


_SETTLED = ("RUNNING", "FINISHED")


def _run_with(options: argparse.Namespace) -> dict[str, Any]:
    from awsiot.greengrasscoreipc import model

    if options.system_limits:
        print("--systemLimits: this stand-in limits nothing", file=sys.stderr)
    found = {}
    for key, user in _pairs("--runWith", options.run_with, "NAME:posixUser=USER[:GROUP]").items():
        name, _, kind = key.partition(":")
        if kind != "posixUser":
            raise CliError(f"--runWith {key}: expected NAME:posixUser=USER[:GROUP]")
        found[name] = model.RunWithInfo(posix_user=user)
    return found


def cancel_deployment(options: argparse.Namespace) -> None:
    """`deployment cancel`."""
    with connect(options.root) as client:
        print(client.cancel_local_deployment(deployment_id=options.deployment_id).message)


def deployment_status(options: argparse.Namespace) -> None:
    """`deployment status`."""
    with connect(options.root) as client:
        _print_deployment(client.get_local_deployment_status(deployment_id=options.deployment_id).deployment)


def _print_deployment(deployment: Any) -> None:
    print(f"{deployment.deployment_id}: {deployment.status}")
    print(f"Created on: {deployment.created_on}")
    details = deployment.deployment_status_details
    if not details or deployment.status != "FAILED":
        return
    print(f"Detailed Status: {details.detailed_deployment_status}")
    if details.deployment_error_stack:
        print(f"Deployment Error Stack: {', '.join(details.deployment_error_stack)}")
    if details.deployment_error_types:
        print(f"Deployment Error Types: {', '.join(details.deployment_error_types)}")
    if details.deployment_failure_cause:
        print(f"Deployment Failure Cause: {details.deployment_failure_cause}")


def list_deployments(options: argparse.Namespace) -> None:
    """`deployment list`."""
    with connect(options.root) as client:
        entries = [
            f"Deployment ID: {one.deployment_id}\nCreated on: {one.created_on}\nStatus: {one.status}\n"
            for one in client.list_local_deployments().local_deployments
        ]
    print("\n".join(entries), end="")


def list_components(options: argparse.Namespace) -> None:
    """`component list`."""
    with connect(options.root) as client:
        waiting = _describe(client)["waiting"]
        print("Components currently running in Greengrass:")
        for component in client.list_components().components:
            _print_component(component, waiting)


def component_details(options: argparse.Namespace) -> None:
    """`component details`."""
    with connect(options.root) as client:
        component = client.get_component_details(component_name=options.names).component_details
        _print_component(component, _describe(client)["waiting"])


def _print_component(component: Any, waiting: dict[str, str]) -> None:
    print(f"Component Name: {component.component_name}")
    print(f"    Version: {component.version}")
    print(f"    State: {component.state}")
    if component.component_name in waiting:
        print(f"    Waits for: {waiting[component.component_name]}")
    print(f"    Configuration: {json.dumps(doubles(component.configuration), separators=(',', ':'))}", flush=True)


def restart_components(options: argparse.Namespace) -> int:
    """`component restart`, silent if all is well; the exit code is 1 if one could not be restarted."""
    return _each(options, lambda client, name: client.restart_component(component_name=name), "restart_status")


def stop_components(options: argparse.Namespace) -> int:
    """`component stop`, silent if all is well; the exit code is 1 if one could not be stopped."""
    return _each(options, lambda client, name: client.stop_component(component_name=name), "stop_status")


def _each(options: argparse.Namespace, act: Callable[[Any, str], Any], status: str) -> int:
    failed = False
    with connect(options.root) as client:
        for name in _split([options.names]):
            answer = act(client, name)
            if getattr(answer, status) != "SUCCEEDED":
                print(f"{name}: {getattr(answer, status)} ({answer.message})", file=sys.stderr)
                failed = True
    return int(failed)


def _describe(client: Any) -> dict[str, Any]:
    described: dict[str, Any] = client.get_configuration(component_name=CORE, key_path=[]).value
    return described


def core_status(options: argparse.Namespace) -> None:
    """`status`: whether a core runs, and how it is."""
    info = published(options.root)
    with connect(options.root) as client:
        core = _describe(client)
    print(f"A local core ({core['profile']} profile) runs in {options.root}, process {info.get('pid')}")
    print(f"  thing     {core['thing']}")
    print(f"  socket    {info['domain_socket_path']}")
    broker = core["iot_core"] or "none"
    print(f"  IoT Core  {broker} ({'connected' if core['online'] else 'not connected'})")
    print(f"  {core['users']}")
    counts = Counter(core["states"].values())
    print(f"  {sum(counts.values())} components: {', '.join(f'{count} {state}' for state, count in counts.items())}")
    for name, reason in core["waiting"].items():
        print(f"  {name} waits for {reason}")


def stop_core(options: argparse.Namespace) -> None:
    """`stop`: ends the core that `start` runs, and waits for that."""
    pid = published(options.root).get("pid")
    if not isinstance(pid, int):
        raise CliError(f"the core in {options.root} was not started by scripts/core start")
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        raise CliError(f"no core runs in {options.root}: process {pid} has ended") from None
    with os.fdopen(process) as handle, connect(options.root):  # who answers on the socket is a core
        signal.pidfd_send_signal(handle.fileno(), signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while Path(f"/proc/{pid}").exists() and _is_published(options.root, pid):
        if time.monotonic() > deadline:
            raise CliError(f"the core (process {pid}) has not ended in {_STOP_SECONDS:g} s")
        time.sleep(_WAIT_SECONDS / 4)
    print("Stopped")


def _is_published(root: Path, pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X") and (root / "core.lock").exists()


def debug_password(options: argparse.Namespace) -> None:
    """`get-debug-password`. There is no debug console here that would take it."""
    with connect(options.root) as client:
        answer = client.create_debug_password()
    print(f"Username: {answer.username}\nPassword: {answer.password}")
    print(f"Password will expire at: {answer.password_expiration.isoformat()}")


def show_logs(options: argparse.Namespace) -> None:
    """`logs get`: prints log files; with --follow, what is appended to the last one until Ctrl-C."""
    paths = list(options.log_file)
    for folder in options.log_dir:
        paths += sorted(folder.glob("*.log"))
    paths = paths or [options.root / "logs" / "greengrass.log"]
    chosen = Filter(options.filter, options.before, options.after)
    try:
        for path in paths[:-1]:
            sys.stdout.write(chosen.pick(path.read_text(errors="replace")))
        _show(paths[-1], chosen, follow=options.follow)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CliError(str(error)) from error


def list_log_files(options: argparse.Namespace) -> None:
    """`logs list-log-files`."""
    folders = options.log_dir or [options.root / "logs"]
    files = sorted(path for folder in folders for path in folder.glob("*.log"))
    for path in files:
        print(path)
    print(f"Total {len(files)} files found." if files else "No log file found.")


def list_keywords(_options: argparse.Namespace) -> None:
    """`logs list-keywords`."""
    print("Suggested keywords for Greengrass log format:")
    print("\n".join(f"{word}=$str" for word in ("level", "thread", "loggerName", "eventType", "serviceName", "error")))


def _show(path: Path, chosen: Filter, *, follow: bool) -> None:
    file = path.open(errors="replace")
    try:
        while True:
            sys.stdout.write(chosen.pick(file.read()))
            sys.stdout.flush()
            if not follow:
                return
            if _is_open(path, file.fileno()):
                time.sleep(_FOLLOW_SECONDS)
            else:
                sys.stdout.write(chosen.pick(file.read()))
                file.close()
                file = path.open(errors="replace")
    finally:
        file.close()


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether a name still means the open file; true while a rotation has left no file of that name."""
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return True


def publish(options: argparse.Namespace) -> None:
    """`pubsub pub`: an object goes as a JSON message, anything else as bytes."""
    from awsiot.greengrasscoreipc import model

    try:
        content = json.loads(options.message)
    except ValueError:
        content = None
    if isinstance(content, dict):
        message = model.PublishMessage(json_message=model.JsonMessage(message=content))
    else:
        message = model.PublishMessage(binary_message=model.BinaryMessage(message=options.message.encode()))
    with connect(options.root) as client:
        client.publish_to_topic(topic=options.topic, publish_message=message)


def subscribe(options: argparse.Namespace) -> None:
    """`pubsub sub`: prints messages until Ctrl-C."""
    printer = _Printer()

    def show(event: Any) -> None:
        if event.json_message:
            printer.print(json.dumps(event.json_message.message, separators=(",", ":")))
        else:
            printer.print((event.binary_message.message or b"").decode(errors="replace"))

    with connect(options.root) as client:
        client.subscribe_to_topic(topic=options.topic, on_stream_event=show, on_stream_error=printer.failed)
        printer.until_interrupted(options.topic)


def iot_publish(options: argparse.Namespace) -> None:
    """`iotcore pub`."""
    with connect(options.root) as client:
        client.publish_to_iot_core(topic_name=options.topic, qos=options.qos, payload=options.message.encode())


def iot_subscribe(options: argparse.Namespace) -> None:
    """`iotcore sub`: prints messages until Ctrl-C."""
    printer = _Printer()

    def show(event: Any) -> None:
        printer.print((event.message.payload or b"").decode(errors="replace"))

    with connect(options.root) as client:
        if not _describe(client)["iot_core"]:
            raise CliError("this core has no broker that stands in for IoT Core: scripts/core start --mqtt URL")
        client.subscribe_to_iot_core(
            topic_name=options.topic, qos=options.qos, on_stream_event=show, on_stream_error=printer.failed
        )
        printer.until_interrupted(options.topic)


class _Printer:
    """Prints messages, on the client's thread, until Ctrl-C, the end of the subscription or of who reads."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._pipe_closed = False

    def print(self, text: str) -> None:
        """Prints one message."""
        try:
            print(text, flush=True)
        except BrokenPipeError:
            self._pipe_closed = True
            self._ended.set()

    def failed(self, error: Exception) -> bool:
        """The subscription has ended with an error."""
        print(f"scripts/core: {type(error).__name__}: {error}", file=sys.stderr)
        self._ended.set()
        return True

    def until_interrupted(self, topic: str) -> None:
        """Waits. BrokenPipeError if nobody reads any more."""
        print(f"Subscribed to {topic}, until {ending()}", file=sys.stderr, flush=True)
        self.print(f"Successfully subscribed to topic: {topic}")
        with contextlib.suppress(KeyboardInterrupt):
            self._ended.wait()
        if self._pipe_closed:
            raise BrokenPipeError


def ending() -> str:
    """How a person ends this process: Ctrl-C reaches the foreground of a terminal only."""
    try:
        in_front = sys.stdin is not None and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        in_front = False
    return "Ctrl-C" if in_front else f"`kill {os.getpid()}`"


def _split(items: list[str]) -> list[str]:
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _pairs(option: str, items: list[str], form: str) -> dict[str, str]:
    found = {}
    for item in _split(items):
        key, equals, value = item.partition("=")
        if not equals:
            raise CliError(f"{option} {item}: expected {form}")
        found[key] = value
    return found


def _absolute(folder: Path | None) -> str | None:
    return str(folder.resolve()) if folder else None


def _read_json(option: str, given: str | None) -> Any:
    """JSON text, or the content of a file of that name."""
    if not given:
        return None
    try:
        return json.loads(given if given.lstrip().startswith("{") else Path(given).read_text())
    except (OSError, ValueError) as error:
        raise CliError(f"{option}: {error}") from error


Command = Callable[[argparse.Namespace], int | None]
