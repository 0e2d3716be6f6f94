"""The actions of scripts/deploy. Each gives the exit code, or raises DeployError."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deployment import DeployError, UsageError, rollback, validation
from deployment.aws import Aws, in_words
from deployment.publish import Built, Publisher, find
from deployment.revision import Components, Deployments, Revision, merged
from deployment.screen import Screen, changes
from deployment.watch import FAILED, PENDING, Outcome, Watch

LOOK_BACK = 100  # deployments; each is a request
LISTED = 5  # earlier deployments that status shows
ATTEMPTS = 3  # to deploy together with others who do it at the same time
INTERRUPTED = 130


class Run:
    """One call of scripts/deploy: what was asked for, and what it is asked of."""

    def __init__(self, options: argparse.Namespace, screen: Screen) -> None:
        self.options = options
        self.screen = screen
        self.aws = Aws(options.region)
        self.deployments = Deployments(self.aws)
        self.watch = Watch(self.aws)
        self.target = self.deployments.target(options.thing_group)
        self.ids = self.deployments.ids(self.target)  # before anything is read that a change is built upon
        self.current = self.deployments.newest(self.target, self.ids)
        self.again = f"./scripts/deploy status --thing-group {options.thing_group}"


@dataclass(frozen=True)
class Change:
    """What the next deployment is to be, and how it is to be if someone else makes one at the same time."""

    shown: Components  # what it is compared with
    components: Components
    settings: dict[str, Any]
    prepare: Callable[[], None] = lambda: None
    upon: Callable[[Revision], Components] | None = None


def deploy(run: Run) -> int:
    """Publishes what is new and merges it into the group's deployment."""
    options, screen = run.options, run.screen
    built = find(options.builds)
    versions = _versions(options, built)
    components = merged(run.current.components, versions, options.remove, options.config)
    for warning in validation.check(components, {*versions, *options.config}):
        screen.warn(warning)
    publisher = Publisher(run.aws, options.bucket)
    missing = _unpublished(versions, built, publisher)
    for component in missing:
        screen.say(f"to be published: {component.name} {component.version} into s3://{publisher.bucket}")

    def publish() -> None:
        for component in missing:
            screen.say(f"publishing {component.name} {component.version}")
            publisher.publish(component)

    def upon(theirs: Revision) -> Components:
        still_there = [name for name in options.remove if name in theirs.components]
        return merged(theirs.components, versions, still_there, options.config)

    return _change(run, Change(_running(run), components, run.current.settings, publish, upon))


def status(run: Run) -> int:
    """Shows the group's deployment and how far it has come."""
    current, screen = run.current, run.screen
    if not current.id:
        screen.say(f"nothing has been deployed to {run.options.thing_group}")
        return 0
    screen.say(f"deployment {current}: {current.status}")
    rows = [(name, specification["componentVersion"]) for name, specification in sorted(current.components.items())]
    screen.table(rows, "component", "version")
    if earlier := [run.deployments.get(each) for each in run.ids[1 : LISTED + 1]]:
        history = [(each.id, f"{each.created:%Y-%m-%d %H:%M}", str(run.watch.outcome(each))) for each in earlier]
        screen.table(history, "earlier deployment", "made at", "devices")
    devices, expected = run.watch.devices(current.job_id), run.watch.things(run.options.thing_group)
    return _verdict(run, current, devices, expected)


def roll_back(run: Run) -> int:
    """Deploys again what an earlier deployment had."""
    if not run.ids[1:]:
        first = f"{run.current} is its first deployment" if run.ids else "nothing has been deployed to it"
        raise DeployError(f"{run.options.thing_group} has nothing to go back to: {first}")
    revisions = [run.deployments.get(each) for each in reversed(run.ids[1:LOOK_BACK])] + [run.current]
    index = _named(run, revisions) if run.options.to else _last_good(run, revisions)
    chosen = revisions[index]
    outcome = run.watch.outcome(chosen)
    run.screen.say(f"going back to deployment {chosen} ({outcome})")
    if not outcome.good:
        run.screen.warn("that deployment did not succeed on its devices, as far as AWS still knows")
    return _change(run, Change(run.current.components, rollback.restored(revisions, index), chosen.settings))


def _versions(options: argparse.Namespace, built: dict[str, Built]) -> dict[str, str]:
    """Component versions to deploy. Raises DeployError for one that is neither built nor given a version."""
    wanted = options.component or ([] if options.remove else [(name, "") for name in built])
    if not wanted and not options.remove:
        raise DeployError(f"nothing is built below {options.builds}: run scripts/build")
    for name, version in wanted:
        if not version and name not in built:
            raise UsageError(f"{name} is not built: run scripts/build, or say {name}=VERSION for a published one")
    return {name: version or built[name].version for name, version in wanted}


def _unpublished(versions: dict[str, str], built: dict[str, Built], publisher: Publisher) -> list[Built]:
    """What has to be published first. Raises DeployError for a version that does not exist or can't be."""
    missing = []
    for name, version in versions.items():
        component = built.get(name)
        if component is None or component.version != version:
            publisher.require(name, version)
        elif publisher.check(component):
            missing.append(component)
    if missing:
        publisher.require_bucket()
    return missing


def _running(run: Run) -> Components:
    """What changes are to be compared with: the current deployment, or what devices had before a canceled one."""
    if run.current.status != "CANCELED":
        return run.current.components
    run.screen.warn(
        f"deployment {run.current} was canceled. What is deployed now builds upon it, and takes all that it has to all "
        "devices; the changes are shown against the last deployment that succeeded. "
        "To go back to that one instead: ./scripts/deploy rollback"
    )
    before = (run.deployments.get(each) for each in run.ids[1:LOOK_BACK])
    good = next((revision for revision in before if run.watch.outcome(revision).good), Revision(run.target))
    return good.components


def _named(run: Run, revisions: list[Revision]) -> int:
    ids = [revision.id for revision in revisions]
    if run.options.to not in ids:
        raise UsageError(
            f"--to {run.options.to} is none of the last {len(ids)} deployments of {run.options.thing_group}; "
            f"see {run.again}"
        )
    return ids.index(run.options.to)


def _last_good(run: Run, revisions: list[Revision]) -> int:
    """Raises DeployError that says why none of the deployments will do."""
    outcomes: dict[int, Outcome] = {}

    def good(index: int) -> bool:
        outcomes[index] = run.watch.outcome(revisions[index])
        return outcomes[index].good

    index = rollback.earlier(rollback.contents(revisions), good)
    if index is None:
        seen = [f"\n  {revisions[each]}: {outcome}" for each, outcome in outcomes.items()]
        same = "the current one is the same as its oldest, and those in between were gone back from"
        why = f"none of these succeeded on its devices:{''.join(seen)}" if seen else same
        raise DeployError(
            f"{run.options.thing_group} has no deployment to go back to: {why}\n"
            f"Name one with --to ID; the last are listed by {run.again}"
        )
    return index


def _change(run: Run, change: Change) -> int:
    rows, screen = changes(change.shown, change.components), run.screen
    if change.components == run.current.components and run.current.status != "CANCELED":
        screen.say("nothing to change")
        return status(run)
    screen.table(rows, "component", "deployed", "new", "configuration", title=f"Changes to {run.options.thing_group}")
    if run.options.dry_run:
        screen.say("a dry run: nothing was changed")
        return 0
    if not run.options.yes and not screen.confirmed():
        screen.say("nothing was changed")
        return 1
    change.prepare()
    return _follow(run, _created(run, change))


def _created(run: Run, change: Change) -> Revision:
    """The deployment that has the change. Greengrass has no compare-and-set: whoever makes a deployment replaces the
    newest. So we look for one that we did not know, and make ours again upon it.
    """
    known, components, settings = run.ids, change.components, change.settings
    for _ in range(ATTEMPTS):
        made = run.deployments.create(run.target, known, components, settings)
        run.screen.say(f"deployment {made.id}")
        after = run.deployments.ids(run.target)
        foreign = [each for each in after if each != made.id and each not in known]
        if not foreign:
            return made
        theirs, known = run.deployments.get(foreign[0]), after
        both = f"someone else made deployment {theirs} at the same time"
        if change.upon is None:
            raise DeployError(f"{both}, and devices follow the newer of the two, {after[0]}; see {run.again}")
        try:
            components, settings = change.upon(theirs), theirs.settings
        except DeployError as error:
            raise DeployError(f"{both}, and {made.id} cannot be merged into it: {error}; see {run.again}") from error
        if components == theirs.components and after[0] == theirs.id:
            return theirs
        run.screen.warn(f"{both}: merging into that")
    raise DeployError(f"others made deployments each of {ATTEMPTS} times, and may have replaced ours; see {run.again}")


def _follow(run: Run, made: Revision) -> int:
    try:
        with in_words():
            expected = run.watch.things(run.options.thing_group)
            with run.screen.progress(expected) as show:
                devices = run.watch.wait(made.job_id, expected, run.options.timeout, run.options.interval, show)
    except KeyboardInterrupt:
        run.screen.warn(f"no longer watched; deployment {made.id} goes on. Look again: {run.again}")
        return INTERRUPTED
    except DeployError as error:
        raise DeployError(f"{error}\nDeployment {made.id} goes on. Look again: {run.again}") from error
    return _verdict(run, made, devices, expected)


def _verdict(run: Run, revision: Revision, devices: dict[str, str], expected: int) -> int:
    """0 when every device has succeeded, `expected` of them at least."""
    screen, bad = run.screen, {thing: state for thing, state in devices.items() if state != "SUCCEEDED"}
    if bad:
        screen.table(sorted(bad.items()), "device", "status")
    total = max(expected, len(devices))
    screen.say(f"{len(devices) - len(bad)} of {total} devices succeeded")
    if failed := sorted(thing for thing, state in bad.items() if state in FAILED):
        screen.say(f"why: aws greengrassv2 list-effective-deployments --core-device-thing-name {failed[0]}")
    if revision.status == "CANCELED":
        screen.say("the deployment was canceled: devices that do not have it do not get it")
    elif len(devices) < total or PENDING & set(bad.values()):
        screen.say(f"the deployment goes on: devices take it when they are online. Look again: {run.again}")
    return 1 if bad or len(devices) < total else 0
