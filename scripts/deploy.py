"""Publishes built components and deploys them to a thing group, keeping everything else that is deployed there.

  ./scripts/deploy --thing-group G [--component NAME[=VERSION] ...] [--config FILE] [--remove NAME] [--dry-run]
  ./scripts/deploy status --thing-group G
  ./scripts/deploy rollback --thing-group G

Without --component every component in greengrass-build/ is deployed. A version that is not built here must be
published already. FILE (YAML or JSON) maps component names to configuration, which is merged into what is deployed.
Exit code 0 means: on every device.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.prompt import Confirm
from rich.table import Table

from deployment import DeployError
from deployment.publish import Built, Publisher, find
from deployment.revision import Components, Deployments, Revision, changes, merged
from deployment.watch import PENDING, Watch

COMPONENTS = Path(__file__).resolve().parent.parent / "components"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("action", nargs="?", choices=["deploy", "status", "rollback"], default="deploy")
    made.add_argument("--thing-group", required=True, metavar="G")
    made.add_argument("--component", action="append", default=[], metavar="NAME[=VERSION]")
    made.add_argument("--remove", action="append", default=[], metavar="NAME")
    made.add_argument("--config", type=Path, metavar="FILE")
    made.add_argument("--bucket", default="", help="for artifacts; default: edgeml-components-<account>-<region>")
    made.add_argument(
        "--builds", type=Path, default=COMPONENTS, metavar="DIR", help="where greengrass-build/ folders lie"
    )
    made.add_argument("--region", help="default: the AWS configuration's")
    made.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds to wait for the devices")
    made.add_argument("--interval", type=float, default=2, metavar="S", help="seconds between looks at the devices")
    return made


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console()
    session = _session(options.region)
    deployments, watch = Deployments(session), Watch(session)
    try:
        current = deployments.current(deployments.target(options.thing_group))
        if options.action == "status":
            return _status(console, options, current, watch)
        if options.action == "rollback":
            return _change(
                console, options, deployments, watch, current, deployments.previous(current.target).components
            )
        return _deploy(console, options, session, deployments, watch, current)
    except DeployError as error:
        console.print(f"[red]{error}", highlight=False)
        return 1


def _session(region: str | None) -> Any:
    import boto3  # takes a third of a second, which --help need not

    return boto3.Session(region_name=region)


def _deploy(
    console: Console,
    options: argparse.Namespace,
    session: Any,
    deployments: Deployments,
    watch: Watch,
    current: Revision,
) -> int:
    account = session.client("sts").get_caller_identity()["Account"]
    bucket = options.bucket or f"edgeml-components-{account}-{session.region_name}"
    publisher = Publisher(session, bucket)
    built = find(options.builds)
    versions = _versions(options.component, built, only_removing=bool(options.remove))
    missing = [built[name] for name in versions if _is_new(built.get(name), versions[name], publisher)]
    config = yaml.safe_load(options.config.read_text(encoding="utf-8")) if options.config else {}
    components = merged(current.components, versions, options.remove, config)

    def publish() -> None:
        for component in missing:
            console.print(f"publishing {component.name} {component.version}")
            publisher.publish(component)

    for component in missing:
        console.print(f"to be published: {component.name} {component.version} into s3://{bucket}", highlight=False)
    return _change(console, options, deployments, watch, current, components, publish)


def _versions(wanted: list[str], built: dict[str, Built], *, only_removing: bool) -> dict[str, str]:
    """Component versions to deploy. Raises DeployError for one that is neither built nor given a version."""
    if not wanted and not only_removing:
        wanted = list(built)
    versions = {}
    for item in wanted:
        name, _, version = item.partition("=")
        if not version and name not in built:
            raise DeployError(f"{name} is not built: run scripts/build, or say {name}=VERSION for a published one")
        versions[name] = version or built[name].version
    if not versions and not only_removing:
        raise DeployError("nothing is built: run scripts/build")
    return versions


def _is_new(built: Built | None, version: str, publisher: Publisher) -> bool:
    """Whether a component has to be published first. Raises DeployError for a version that can't be."""
    if built is not None and built.version == version:
        return publisher.check(built)
    return False  # published before or a public component; creating the deployment says when it is not


def _change(
    console: Console,
    options: argparse.Namespace,
    deployments: Deployments,
    watch: Watch,
    current: Revision,
    components: Components,
    prepare: Any = None,
) -> int:
    rows = changes(current.components, components)
    if not rows:
        console.print("nothing to change")
        return _status(console, options, current, watch)
    table = Table("component", "deployed", "new", "configuration", title=f"Changes to {options.thing_group}")
    for name, old, new, configuration in rows:
        table.add_row(name, old or "-", new or "[red]removed", configuration)
    console.print(table)
    if options.dry_run:
        return 0
    if not options.yes and not _confirmed(console):
        console.print("nothing was changed")
        return 1
    if prepare:
        prepare()
    made = deployments.create(current, components)
    console.print(f"deployment {made.id}", highlight=False)
    return _follow(console, options, watch, made)


def _confirmed(console: Console) -> bool:
    try:
        return Confirm.ask("Deploy?", console=console, default=False)
    except EOFError:  # nobody is there to answer
        return False


def _follow(console: Console, options: argparse.Namespace, watch: Watch, made: Revision) -> int:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    expected = watch.things(options.thing_group)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("devices", total=None)

        def show(statuses: Counter[str]) -> None:
            text = ", ".join(f"{count} {status.lower()}" for status, count in sorted(statuses.items()))
            done = sum(count for status, count in statuses.items() if status not in PENDING)
            progress.update(
                task, description=text or "no devices", completed=done, total=max(expected, statuses.total())
            )

        devices = watch.wait(made.job_id, expected, options.timeout, options.interval, show)
    return _verdict(console, devices, expected)


def _status(console: Console, options: argparse.Namespace, current: Revision, watch: Watch) -> int:
    if not current.id:
        console.print("nothing has been deployed to this group")
        return 0
    console.print(f"deployment {current.id} {current.status}", highlight=False)
    table = Table("component", "version")
    for name, specification in sorted(current.components.items()):
        table.add_row(name, specification["componentVersion"])
    console.print(table)
    return _verdict(console, watch.devices(current.job_id), watch.things(options.thing_group))


def _verdict(console: Console, devices: dict[str, str], expected: int) -> int:
    """0 when every device has succeeded, `expected` of them at least."""
    bad = {thing: status for thing, status in devices.items() if status != "SUCCEEDED"}
    table = Table("device", "status")
    for thing, status in sorted(bad.items()):
        table.add_row(thing, status)
    if bad:
        console.print(table)
    total = max(expected, len(devices))
    console.print(f"{len(devices) - len(bad)} of {total} devices succeeded")
    if len(devices) < total or PENDING & set(bad.values()):
        console.print("the deployment goes on: devices take it when they are online")
    return 1 if bad or len(devices) < total else 0


if __name__ == "__main__":
    sys.exit(main())
