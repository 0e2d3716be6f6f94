"""What each word of greengrass-cli does against a running core. Each takes the parsed options."""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localdev.core.client import CliError, connect, describe, published
from localdev.core.config_store import doubles

_WAIT_SECONDS = 0.2
_STOP_SECONDS = 60.0
_MAX_PASSWORD = 4096


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
            states = describe(client)["states"]
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
        waiting = describe(client)["waiting"]
        print("Components currently running in Greengrass:")
        for component in client.list_components().components:
            _print_component(component, waiting)


def component_details(options: argparse.Namespace) -> None:
    """`component details`."""
    with connect(options.root) as client:
        component = client.get_component_details(component_name=options.names).component_details
        _print_component(component, describe(client)["waiting"])


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


def core_status(options: argparse.Namespace) -> None:
    """`status`: whether a core runs, and how it is."""
    info = published(options.root)
    with connect(options.root) as client:
        core = describe(client)
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


def component_password(options: argparse.Namespace) -> None:
    """`password`: the one that a component generated into its work folder."""
    file = options.root / "work" / options.component / "password"
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as password:
            print(password.read(_MAX_PASSWORD).strip())
    except (OSError, ValueError) as error:
        raise CliError(f"{file}: {getattr(error, 'strerror', None) or error}") from error


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
