"""What every component's `main` shares: configuration, logging, signals, health, exit codes.

A component is a class with `start`, `reconfigure` and `stop`; its `__main__.py` calls `run`. The main thread does
nothing but wait, so that SIGTERM is answered at once whatever the workers are doing.
"""

import argparse
import contextlib
import logging
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

from edgeml import config as configuration
from edgeml import credentials, ending, messages
from edgeml import log as logs
from edgeml._context import Component, Context
from edgeml._last_good import LastGood
from edgeml._standalone import work_folder
from edgeml.ending import EXIT_FAILED
from edgeml.errors import ConfigError, DisconnectedError, EdgemlError
from edgeml.health import Health, fitted
from edgeml.ipc import GreengrassIpc, Ipc, StandaloneIpc

__all__ = ["Component", "Context", "run"]

log = logging.getLogger(__name__)

C = TypeVar("C")

EXIT_STOPPED, EXIT_CONFIG = 0, 78
HEALTH_INTERVAL_S = 10.0
MAX_UNKNOWN = 5  # problems about keys that are not known
STOP_FOLLOWS_S = 1.0  # from the loss of the connection to SIGTERM, where a stop is the reason
SETTLE_S = 0.3  # a deployment changes many keys, and the core tells of each one

_STOP, _CONFIGURATION = "stop", "configuration"


def run(kind: type[Component[C]], config_type: type[C], argv: list[str] | None = None) -> int:
    """Run a component until it is told to stop; the process' exit code."""
    code = EXIT_FAILED
    ending.at_last(lambda: code)
    arguments = _arguments(kind, argv)
    logs.setup(arguments.log_level, stdout_is_data=arguments.standalone)
    health = Health(kind.name, kind.version)
    events: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
    ending.on_signals(lambda: events.put(_STOP))
    threading.excepthook = lambda told: _thread_died(told, health)
    try:
        ipc: Ipc = (
            StandaloneIpc(arguments.config, health)
            if arguments.standalone
            else GreengrassIpc(events.put, kind.name, health)
        )
        work = _work(kind, arguments)
    except EdgemlError as error:
        log.error("%s", error)
        return EXIT_FAILED
    health.gauge("messages.dropped", lambda: float(ipc.dropped()))
    context = Context(
        ipc=ipc,
        health=health,
        work=work,
        root=arguments.root or (arguments.work or Path.cwd()).absolute().parent.parent,
        thing_name=os.environ.get("AWS_IOT_THING_NAME", "") or "unknown-thing",
        events=events,
    )
    credentials.watch(context)
    try:
        # Standalone there is a person who reads that the file is wrong.
        kept = None if arguments.standalone else LastGood(work, kind.version)
        code = _run(kind, config_type, context, kept)
    finally:
        ipc.close()
        sys.stdout.flush()
    return code


def _work(kind: type[Component[C]], arguments: argparse.Namespace) -> Path:
    """The core starts a component in its work folder; a person's current folder is not to be littered."""
    if arguments.work is not None:
        try:
            arguments.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("--work", f"{arguments.work}: {error.strerror}") from error
        return Path(arguments.work).absolute()
    if not arguments.standalone:
        return Path.cwd()
    work = work_folder(kind.name, arguments.config)
    log.info("files of this run %s", logs.kv(folder=work))
    return work


def _thread_died(told: threading.ExceptHookArgs, health: Health) -> None:
    """A thread that `spawn` did not make (of a library, or of ours that contains its own errors) let one through."""
    name = told.thread.name if told.thread is not None else "?"
    log.error("thread died %s", logs.kv(thread=name, error=repr(told.exc_value)), exc_info=told.exc_value)
    health.count("workers.failed")
    health.error(f"{name}: {told.exc_value!r}")
    health.problems.found("worker_failed", name, f"ended for good: {told.exc_value!r}")


def _arguments(kind: type[Component[C]], argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=kind.name, description=kind.__doc__)
    parser.add_argument("--standalone", action="store_true", help="run outside Greengrass, on stdin and stdout")
    parser.add_argument("--config", type=Path, help="JSON or TOML configuration file, with --standalone")
    parser.add_argument("--work", type=Path, help="folder for the component's own files, with --standalone")
    parser.add_argument("--root", type=Path, help="folder that holds work/<component>, for model bundles")
    parser.add_argument(
        "--log-level",
        type=str.upper,
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        default=os.environ.get("EDGEML_LOG_LEVEL", "INFO").upper(),
    )
    parser.add_argument("--version", action="version", version=f"{kind.name} {kind.version}")
    arguments = parser.parse_args(argv)
    if arguments.standalone and arguments.config is None:
        parser.error("--standalone needs --config FILE")
    if arguments.work is not None and not arguments.standalone:
        parser.error("--work is for --standalone, the core's work folder is the current one")
    return arguments


def _run(kind: type[Component[C]], config_type: type[C], context: Context, kept: LastGood | None) -> int:
    try:
        # Subscribed first: a change made while this configuration is being read is not missed.
        context.ipc.on_configuration(lambda: context.events.put(_CONFIGURATION))
        component = _started(kind, config_type, context, kept)
    except Exception as error:  # noqa: BLE001  (whatever it is, it ends in words)
        context.stopping.set()
        return _failed(error, context)
    log.info("started %s", logs.kv(component=component.name, version=component.version, thing=context.thing_name))
    code = _until_stopped(component, config_type, context, kept)
    if not _stop(component, context):
        code = code or EXIT_FAILED
    with contextlib.suppress(EdgemlError):  # the last word of a component that is gone anyway
        _publish_health(component, context)
    log.info("stopped %s", logs.kv(code=code))
    return code


def _started(kind: type[Component[C]], config_type: type[C], context: Context, kept: LastGood | None) -> Component[C]:
    """A component that runs: on the deployed configuration, or on its last good one where that is refused."""
    raw = _configuration(config_type, context)
    try:
        component = _started_with(kind, config_type, raw, context)
    except ConfigError as refused:
        good = kept.load() if kept is not None else None
        if good is None:
            raise
        try:
            component = _started_with(kind, config_type, good, context)
        except ConfigError:
            raise refused from None
        _refused(refused, context)
    else:
        if kept is not None:
            kept.keep(raw)
    context.ipc.ready()
    return component


def _started_with(
    kind: type[Component[C]], config_type: type[C], raw: dict[str, Any], context: Context
) -> Component[C]:
    config = configuration.load(config_type, raw)
    component = kind(context)
    try:
        component.start(config)
    except Exception as error:
        if not isinstance(error, ConfigError):  # else another one may be started in its place
            context.stopping.set()
        with contextlib.suppress(Exception):  # what has not begun cannot always be stopped; the error is what counts
            ending.in_time(component.stop)
        raise
    return component


def _refused(error: ConfigError, context: Context) -> None:
    log.error("%s; going on with the last good configuration", error)
    context.health.error(error)
    context.health.problems.found("configuration_refused", "configuration", str(error))


def _failed(error: Exception, context: Context) -> int:
    if isinstance(error, DisconnectedError) and _stop_follows(context):
        return EXIT_STOPPED
    if isinstance(error, EdgemlError):
        log.error("%s", error)
    else:
        log.error("start failed unexpectedly: %r", error, exc_info=error)
    return EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED


def _stop(component: Component[C], context: Context) -> bool:
    """Whether the component stopped without an error; one that takes too long ends the process."""
    context.stopping.set()
    try:
        ending.in_time(component.stop)
    except EdgemlError as error:
        log.error("stopping: %s", error)
        return False
    except Exception as error:
        log.exception("stop failed unexpectedly: %r", error)
        return False
    return True


def _configuration(config_type: type[C], context: Context) -> dict[str, Any]:
    """What is deployed, not yet converted; what is misspelt in it is told."""
    raw = context.ipc.configuration()
    _tell_unknown(dict(configuration.unknown_keys(config_type, raw)), context)
    return raw


def _tell_unknown(unknown: dict[str, str], context: Context) -> None:
    """Each unknown key is a problem until it is gone, and never an error: leftovers survive upgrades."""
    problems = context.health.problems
    if len(unknown) > MAX_UNKNOWN:  # reports have room for a few problems, of which others may be worse
        paths = list(unknown)[MAX_UNKNOWN - 1 :]
        unknown = {path: unknown[path] for path in list(unknown)[: MAX_UNKNOWN - 1]}
        unknown["configuration"] = f"{len(paths)} more keys are not known: {', '.join(paths)}"
    for problem in problems.current():
        if problem.code == "unknown_key" and problem.subject not in unknown:
            problems.cleared("unknown_key", problem.subject)
    for path, sentence in unknown.items():
        problems.found("unknown_key", path, sentence)


def _until_stopped(component: Component[C], config_type: type[C], context: Context, kept: LastGood | None) -> int:
    due = time.monotonic()  # the first report says that it runs
    while True:
        try:
            event = context.events.get(timeout=max(0.0, due - time.monotonic()))
        except queue.Empty:
            due += HEALTH_INTERVAL_S
            event = ""
        try:
            if not event:
                context.workers.look()
                _publish_health(component, context)
            elif event == _STOP:
                return EXIT_STOPPED
            elif event == _CONFIGURATION:
                _reconfigure(component, config_type, context, kept)
            elif isinstance(event, DisconnectedError) and _stop_follows(context):
                return EXIT_STOPPED
            else:
                log.error("ending: %s", event)
                return EXIT_FAILED
        except ConfigError as error:
            _refused(error, context)
        except EdgemlError as error:  # what is running stays as it is; only the change or the report is lost
            log.error("%s", error)
            context.health.error(error)
        except Exception as error:  # a fault of ours in a change or a report is no reason to end what runs
            log.exception("failed unexpectedly, going on: %r", error)
            context.health.error(error)
            context.health.count("workers.failed")


def _stop_follows(context: Context) -> bool:
    """Whether SIGTERM comes, too: a nucleus that shuts down closes IPC just before, and that is no failure."""
    log.warning("the connection to the core is lost")
    end = time.monotonic() + STOP_FOLLOWS_S
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            if context.events.get(timeout=left) == _STOP:
                return True
    return False


def _reconfigure(component: Component[C], config_type: type[C], context: Context, kept: LastGood | None) -> None:
    time.sleep(SETTLE_S)
    others = []
    while not context.events.empty():
        if (event := context.events.get()) != _CONFIGURATION:
            others.append(event)
    for event in others:
        context.events.put(event)
    if _STOP in others:
        return
    raw = _configuration(config_type, context)
    component.reconfigure(configuration.load(config_type, raw))
    log.info("configuration changed")
    context.health.problems.cleared("configuration_refused", "configuration")
    if kept is not None:
        kept.keep(raw)


def _publish_health(component: Component[C], context: Context) -> None:
    data = fitted(context.health.report())
    context.ipc.publish(messages.health(component.name.removeprefix("edgeml.")), data)
