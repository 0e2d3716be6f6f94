"""What every component's `main` shares: configuration, logging, signals, health, exit codes.

A component is a class with `start`, `reconfigure` and `stop`; its `__main__.py` calls `run`. The main thread does
nothing but wait, so that SIGTERM is answered at once whatever the workers are doing.
"""

import argparse
import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import msgspec

from edgeml import config as configuration
from edgeml import credentials, messages
from edgeml import log as logs
from edgeml._worker import Worker, Workers
from edgeml.errors import ConfigError, DisconnectedError, EdgemlError
from edgeml.health import Health
from edgeml.ipc import GreengrassIpc, Ipc, StandaloneIpc

log = logging.getLogger(__name__)

C = TypeVar("C")

EXIT_STOPPED, EXIT_FAILED, EXIT_CONFIG = 0, 1, 78
HEALTH_INTERVAL_S = 10.0
STOP_TIMEOUT_S = 4.5  # the nucleus kills what has not ended 5 s after SIGTERM
STOP_FOLLOWS_S = 1.0  # from the loss of the connection to SIGTERM, where a stop is the reason
SETTLE_S = 0.3  # a deployment changes many keys, and the core tells of each one

_STOP, _CONFIGURATION = "stop", "configuration"


@dataclass
class Context:
    """What a component is given: its connection, its health, where it may write, and when it must stop."""

    ipc: Ipc
    health: Health
    work: Path  # the component's own work folder
    root: Path  # the core's root folder, under which other components' work folders lie
    thing_name: str
    stopping: threading.Event = field(default_factory=threading.Event)
    _events: "queue.SimpleQueue[str | BaseException]" = field(default_factory=queue.SimpleQueue)

    def fail(self, error: BaseException) -> None:
        """End the process with an error, so that the core starts it anew. Any thread may call it.

        For what only a new process can cure: the connection to the core is lost, threads hang in a driver.
        """
        self._events.put(error)

    def __post_init__(self) -> None:
        self.workers = Workers(self.health, self.stopping, self.fail)

    def spawn(self, name: str, work: Callable[[], None], *, again: bool = True) -> threading.Thread:
        """Run `work` on a daemon thread; an unexpected exception is told and `work` run again (edgeml._worker).

        `again=False` for the work of one request, which is not to be repeated. Whoever stops a part first tells its
        work to end, then joins: a joined worker is not run again.
        """
        worker = Worker(name, work, self.workers, again=again)
        worker.start()
        return worker


class Component(Generic[C]):
    """Base of all components. Constructors do no I/O; `start` may raise EdgemlError, which ends the process."""

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, context: Context) -> None:
        self.context = context

    def start(self, config: C) -> None:
        raise NotImplementedError

    def reconfigure(self, config: C) -> None:
        """Take over a changed, valid configuration while running."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop taking work, finish what is in hand, flush. Must return within four seconds."""
        raise NotImplementedError


def run(kind: type[Component[C]], config_type: type[C], argv: list[str] | None = None) -> int:
    """Run a component until it is told to stop; the process' exit code."""
    arguments = _arguments(kind, argv)
    logs.setup(arguments.log_level, stdout_is_data=arguments.standalone)
    health = Health(kind.name, kind.version)
    events: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
    _on_signals(events)
    try:
        ipc: Ipc = (
            StandaloneIpc(arguments.config) if arguments.standalone else GreengrassIpc(events.put, kind.name, health)
        )
    except EdgemlError as error:
        log.error("%s", error)
        return EXIT_FAILED
    health.gauge("messages.dropped", lambda: float(ipc.dropped()))
    work = Path.cwd()
    context = Context(
        ipc=ipc,
        health=health,
        work=work,
        root=arguments.root or work.parent.parent,
        thing_name=os.environ.get("AWS_IOT_THING_NAME", "") or "unknown-thing",
        _events=events,
    )
    credentials.watch(context)
    try:
        return _run(kind(context), config_type, context)
    finally:
        ipc.close()
        sys.stdout.flush()


def _on_signals(events: "queue.SimpleQueue[str | BaseException]") -> None:
    """SIGTERM and SIGINT ask for the end; whatever the main thread is doing then, the process ends in time.

    The handler only puts into queues, which is safe where taking a lock is not.
    """
    asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def limit() -> None:
        asked.get()
        time.sleep(STOP_TIMEOUT_S)
        _give_up()

    def stop(number: int, frame: object) -> None:
        events.put(_STOP)
        asked.put(None)

    threading.Thread(target=limit, name="stop-limit", daemon=True).start()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _arguments(kind: type[Component[C]], argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=kind.name, description=kind.__doc__)
    parser.add_argument("--standalone", action="store_true", help="run outside Greengrass, on stdin and stdout")
    parser.add_argument("--config", type=Path, help="JSON or TOML configuration file, with --standalone")
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
    return arguments


def _run(component: Component[C], config_type: type[C], context: Context) -> int:
    try:
        # Subscribed first: a change made while this configuration is being read is not missed.
        context.ipc.on_configuration(lambda: context._events.put(_CONFIGURATION))
        config = _configuration(config_type, context)
    except Exception as error:  # noqa: BLE001  (as below)
        return _failed(error, context)
    try:
        component.start(config)
        context.ipc.ready()
    except Exception as error:  # noqa: BLE001  (whatever it is, it ends in words)
        with contextlib.suppress(Exception):  # what has not begun cannot always be stopped; the error is what counts
            _stop(component, context)
        return _failed(error, context)
    log.info("started %s", logs.kv(component=component.name, version=component.version, thing=context.thing_name))
    code = _until_stopped(component, config_type, context)
    if not _stop(component, context):
        code = code or EXIT_FAILED
    with contextlib.suppress(EdgemlError):  # the last word of a component that is gone anyway
        _publish_health(component, context)
    log.info("stopped %s", logs.kv(code=code))
    return code


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
    watchdog = threading.Timer(STOP_TIMEOUT_S, _give_up)
    watchdog.daemon = True
    watchdog.start()
    context.stopping.set()
    try:
        component.stop()
    except EdgemlError as error:
        log.error("stopping: %s", error)
        return False
    except Exception as error:
        log.exception("stop failed unexpectedly: %r", error)
        return False
    finally:
        watchdog.cancel()
    return True


def _configuration(config_type: type[C], context: Context) -> C:
    raw = context.ipc.configuration()
    _tell_unknown(dict(configuration.unknown_keys(config_type, raw)), context)
    return configuration.load(config_type, raw)


def _tell_unknown(unknown: dict[str, str], context: Context) -> None:
    """Each unknown key is a problem until it is gone, and never an error: leftovers survive upgrades."""
    problems = context.health.problems
    for problem in problems.current():
        if problem.code == "unknown_key" and problem.subject not in unknown:
            problems.cleared("unknown_key", problem.subject)
    for path, sentence in unknown.items():
        problems.found("unknown_key", path, sentence)


def _until_stopped(component: Component[C], config_type: type[C], context: Context) -> int:
    due = time.monotonic() + HEALTH_INTERVAL_S
    while True:
        try:
            event = context._events.get(timeout=max(0.0, due - time.monotonic()))
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
                _reconfigure(component, config_type, context)
            elif isinstance(event, DisconnectedError) and _stop_follows(context):
                return EXIT_STOPPED
            else:
                log.error("ending: %s", event)
                return EXIT_FAILED
        except EdgemlError as error:  # what is running stays as it is; only the change or the report is lost
            log.error("%s", error)
            context.health.error(error)
        except Exception as error:  # a fault of ours in a change or a report is no reason to end what runs
            log.exception("failed unexpectedly, going on: %r", error)
            context.health.error(error)
            context.health.count("workers.failed")


def _stop_follows(context: Context) -> bool:
    """Whether SIGTERM comes, too: a nucleus that shuts down closes IPC just before, and that is no failure."""
    end = time.monotonic() + STOP_FOLLOWS_S
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(queue.Empty):
            if context._events.get(timeout=left) == _STOP:
                return True
    return False


def _reconfigure(component: Component[C], config_type: type[C], context: Context) -> None:
    time.sleep(SETTLE_S)
    kept = []
    while not context._events.empty():
        if (event := context._events.get()) != _CONFIGURATION:
            kept.append(event)
    for event in kept:
        context._events.put(event)
    if _STOP in kept:
        return
    component.reconfigure(_configuration(config_type, context))
    log.info("configuration changed")


def _publish_health(component: Component[C], context: Context) -> None:
    report = context.health.report()
    data = messages.encode(report)
    # Many cameras or pipelines: better a report without its finer points than none.
    for part in ("rates", "latency_ms", "gauges", "counters", "notes"):
        if len(data) > messages.MAX_IPC_BYTES:
            report = msgspec.structs.replace(report, **{part: {}})
            data = messages.encode(report)
    if len(data) > messages.MAX_IPC_BYTES:
        data = messages.encode(msgspec.structs.replace(report, problems=report.problems[:1]))
    context.ipc.publish(messages.health(component.name.removeprefix("edgeml.")), data)


def _give_up() -> None:
    log.error("stop took longer than %s s, exiting", STOP_TIMEOUT_S)
    os._exit(EXIT_FAILED)
