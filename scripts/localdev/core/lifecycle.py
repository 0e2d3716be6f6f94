"""The life of one component: install, start, watch, restart, stop.

Source of states and rules: Lifecycle and GenericExternalService of aws-greengrass-nucleus. The Java nucleus retries
at once and gives up after three errors in a row; Nucleus Lite waits a second and gives up after three in an hour, and
after three starts in an hour whatever their reason.
"""

import asyncio
import time
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from localdev.core.logs import Record
from localdev.core.process import Process
from localdev.core.profiles import Profile
from localdev.core.recipe import Recipe, RecipeError, Step
from localdev.core.states import LITE_WINDOW_SECONDS, MAX_ERRORS, ErrorCount, State, skips

LITE_RESTART_SECONDS = 1.0


class Host(Protocol):
    """What a component needs of its core."""

    profile: Profile

    def launch(self, name: str, step: Step) -> tuple[list[str], dict[str, str]]:
        """The command that runs a component's step, and its environment."""

    def work(self, name: str) -> Path:
        """The component's working directory, which exists."""

    def log(self, name: str, record: Record) -> None:
        """Appends to the component's log."""

    def state_changed(self, component: "Component", before: State) -> None:
        """Is told of every change of state."""


class _Signal(Enum):
    STOP = 1
    RESTART = 2
    WAKE = 3
    REPORTED_RUNNING = 4
    REPORTED_ERRORED = 5


class _Exited(NamedTuple):
    process: Process
    code: int


class _Outcome(Enum):
    DONE = 1
    FAILED = 2
    STOP = 3
    RESTART = 4


class Component:
    """One deployed component. All methods are for the event loop's thread."""

    def __init__(self, recipe: Recipe, steps: dict[str, Step], host: Host) -> None:
        self.name = recipe.name
        self.recipe = recipe
        self.steps = steps
        self.state = State.NEW
        self.starts = 0
        self.is_restored = False  # was deployed by an earlier core of this root, and not changed since
        self.dependencies: list[Component] = []
        self._host = host
        self._events: asyncio.Queue[_Signal | _Exited] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._process: Process | None = None
        self._installed = False
        self._stopping = False
        self._start_failed = False
        self._shutdown: Step | None = None
        self._begun: list[float] = []
        self._errors = ErrorCount(recipe.error_reset, sliding=host.profile is Profile.LITE)

    @property
    def pid(self) -> int | None:
        """Process id of the shell that runs the present step, if one runs."""
        return self._process.pid if self._process and not self._process.exited.done() else None

    @property
    def ready(self) -> bool:
        """Whether components that depend on this one may run."""
        if self._host.profile is Profile.LITE:
            return self.state is State.RUNNING
        return self.state in (State.RUNNING, State.FINISHED) or (
            self.state is State.STOPPING and not self._start_failed
        )

    def start(self, *, reinstall: bool = False) -> None:
        """Begins the component's life, or begins it again after it has ended."""
        self._stopping = False
        if self._task and not self._task.done():
            return
        self._installed = self._installed and not reinstall
        if reinstall:
            self._errors.clear()
            self._begun.clear()
        self._set(State.INSTALLED if self._installed else State.NEW)
        self._task = asyncio.create_task(self._live(), name=f"component {self.name}")
        self._task.add_done_callback(self._ended)

    def restart(self) -> None:
        """Stops the component if it runs, and starts it again. No effect on a broken one."""
        if self._task and not self._task.done():
            self._events.put_nowait(_Signal.RESTART)
        elif self.state is not State.BROKEN:
            self.start()

    async def stop(self) -> None:
        """Ends the component's life; on return no process of it is left."""
        self.stop_soon()
        if self._task:
            await asyncio.wait({self._task})

    def stop_soon(self) -> None:
        """Asks the component to end its life."""
        self._stopping = True
        self._events.put_nowait(_Signal.STOP)

    def report(self, state: Literal["RUNNING", "ERRORED"]) -> None:
        """UpdateState by the component itself. What its state does not allow is ignored, as in the nucleus."""
        running = state == "RUNNING"
        allowed = (State.STARTING,) if running else (State.NEW, State.STARTING, State.RUNNING, State.STOPPING)
        if self.state in allowed:
            self._events.put_nowait(_Signal.REPORTED_RUNNING if running else _Signal.REPORTED_ERRORED)
        elif self.state != state:
            self._say("WARN", "Invalid reported state", reportedState=state)

    @property
    def waits_for(self) -> str:
        """What keeps a component from its start; empty if nothing does."""
        if self.state not in (State.NEW, State.INSTALLED):
            return ""
        if self._process is not None and not self._process.exited.done():
            return "its install step, which runs"
        missing = [f"{other.name} ({other.state})" for other in self.dependencies if not other.ready]
        return ", ".join(missing) or "the end of the deployment under way"

    @property
    def hindered_by(self) -> list["Component"]:
        """The components, direct or not, that this one waits for before its start."""
        if self.state not in (State.NEW, State.INSTALLED):
            return []
        missing = [other for other in self.dependencies if not other.ready]
        return [*missing, *(one for other in missing for one in other.hindered_by)]

    @property
    def paused(self) -> bool:
        """Whether the component's processes are stopped for the time being."""
        return self._process is not None and self._process.paused

    async def pause(self) -> None:
        """Stops the component's processes until `resume`; its state does not change."""
        if self._process:
            await self._process.pause()

    async def resume(self) -> None:
        """Lets paused processes go on."""
        if self._process:
            await self._process.resume()

    def dependency_changed(self, dependency: "Component") -> None:
        """Is called when a hard dependency's state has changed."""
        if self._host.profile is Profile.LITE and dependency.state in (State.FINISHED, State.BROKEN):
            # systemd's BindsTo: what depends on a unit that has ended is stopped and not retried.
            self.stop_soon()
        elif self.state in (State.STARTING, State.RUNNING) and not dependency.ready:
            self._events.put_nowait(_Signal.RESTART)
        else:
            self._events.put_nowait(_Signal.WAKE)

    def _ended(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure:
            self._say("ERROR", f"the core failed to run this component: {failure!r}")
            self._set(State.BROKEN)

    async def _live(self) -> None:
        going_on = True
        while going_on:
            while not self._events.empty():
                self._events.get_nowait()  # said to a process that is gone
            if self._stopping:
                break
            going_on = await (self._start() if self._installed else self._install())
        if self._installed and self.state is not State.BROKEN:
            self._set(State.FINISHED)

    async def _install(self) -> bool:
        step = self._step("install")
        if step:
            outcome = await self._launch(step, on_launch=None)
            await self._end_process()
            if outcome is _Outcome.FAILED:
                return await self._error(State.NEW)
            if outcome is not _Outcome.DONE:
                return outcome is _Outcome.RESTART
        self._errors.succeeded(State.NEW)
        self._installed = True
        self._set(State.INSTALLED)
        return True

    async def _start(self) -> bool:
        while not all(dependency.ready for dependency in self.dependencies):
            await self._events.get()
            if self._stopping:
                return True
        if self._host.profile is Profile.LITE and not self._may_begin():
            self._say("ERROR", "started three times within an hour, which is systemd's limit")
            self._set(State.BROKEN)
            return False
        startup = self._step("startup")
        step = startup or self._step("run")
        self._shutdown = self._step("shutdown")
        self.starts += 1
        if step is None:
            return False
        self._set(State.STARTING)
        outcome = await self._launch(step, on_launch=None if startup else State.RUNNING)
        if startup and outcome is _Outcome.DONE:
            self._advance_to_running()
            outcome = await self._follow(None, None)
        if outcome is _Outcome.FAILED:
            return await self._error(self.state)
        self._errors.succeeded(State.RUNNING)
        await self._shut_down()
        if outcome is _Outcome.RESTART:
            self._set(State.INSTALLED)
        return outcome is _Outcome.RESTART

    def _may_begin(self) -> bool:
        """systemd's start limit, which counts restarts by hand, too."""
        now = time.monotonic()
        self._begun = [begun for begun in self._begun if now - begun < LITE_WINDOW_SECONDS]
        self._begun.append(now)
        return len(self._begun) <= MAX_ERRORS

    async def _launch(self, step: Step, on_launch: State | None) -> _Outcome:
        try:
            process = self._process = await self._spawn(step)
        except OSError as error:
            self._say("ERROR", f"cannot run {step.key}: {error}")
            return _Outcome.FAILED
        if on_launch:
            self._advance_to_running()
        outcome = await self._follow(process, step.timeout)

        def told(exited: asyncio.Future[int]) -> None:
            self._say("INFO", f"{step.key.split('.')[0].capitalize()} script exited", exitCode=str(exited.result()))

        if process.exited.done():
            told(process.exited)
        else:
            process.exited.add_done_callback(told)
        return outcome

    async def _follow(self, process: Process | None, timeout: float | None) -> _Outcome:
        """Waits until the process has exited, or what else ends the present state."""
        if process:
            process.exited.add_done_callback(lambda exited: self._events.put_nowait(_Exited(process, exited.result())))
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                event = await asyncio.wait_for(self._events.get(), remaining)
            except TimeoutError:
                self._say("ERROR", "the step has timed out", timeoutSeconds=str(timeout))
                return _Outcome.FAILED
            match event:
                case _Exited(exited, code) if exited is process:
                    return _Outcome.DONE if code == 0 else _Outcome.FAILED
                case _Signal.REPORTED_RUNNING:
                    self._advance_to_running()
                    deadline = None
                case _Signal.REPORTED_ERRORED:
                    return _Outcome.FAILED
                case _Signal.STOP if self._stopping:
                    return _Outcome.STOP
                case _Signal.RESTART:
                    return _Outcome.RESTART

    async def _error(self, origin: State) -> bool:
        """Handles an error out of `origin`; False if the component is broken."""
        broken = self._errors.add(origin)
        self._set(State.BROKEN if broken else State.ERRORED)
        recover = self._step("recover")
        if recover and not broken:
            await self._run_to_end(recover)
        if origin is not State.NEW:
            self._start_failed = origin is State.STARTING
            await self._shut_down()
            self._start_failed = False
        if broken:
            return False
        if self._host.profile is Profile.LITE:
            await self._pause(LITE_RESTART_SECONDS)
        self._set(State.NEW if origin is State.NEW else State.INSTALLED)
        return True

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not self._stopping:
                    await self._events.get()
        except TimeoutError:
            return

    async def _shut_down(self) -> None:
        if self.state is not State.BROKEN:
            self._set(State.STOPPING)
        if self._shutdown:
            await self._run_to_end(self._shutdown)
        await self._end_process()

    async def _run_to_end(self, step: Step) -> None:
        """Runs shutdown or recover; how it ends is only logged."""
        try:
            process = await self._spawn(step)
        except OSError as error:
            self._say("ERROR", f"cannot run {step.key}: {error}")
            return
        try:
            code = await asyncio.wait_for(asyncio.shield(process.exited), step.timeout)
            self._say("INFO", f"{step.key.split('.')[0].capitalize()} script exited", exitCode=str(code))
        except TimeoutError:
            self._say("WARN", f"{step.key} has timed out", timeoutSeconds=str(step.timeout))
        finally:
            await process.stop()

    async def _end_process(self) -> None:
        if self._process:
            await self._process.stop()
            self._process = None

    async def _spawn(self, step: Step) -> Process:
        name = f"services.{self.name}.lifecycle.{step.key}"
        self._say("INFO", "", "shell-runner-start", scriptName=name, command=f'["{step.script}"]')

        def copy(stream: str, line: str) -> None:
            contexts = {"scriptName": name, "serviceName": self.name, "currentState": self.state.value}
            level: Literal["INFO", "WARN"] = "INFO" if stream == "stdout" else "WARN"
            self._host.log(self.name, Record(level, "Copier", self.name, stream, line, contexts))

        folder = await asyncio.to_thread(self._host.work, self.name)  # which may change the owner of a whole tree
        command, environment = self._host.launch(self.name, step)
        open_stdin = self._host.profile is Profile.JAVA
        return Process(command, folder, environment, copy, open_stdin=open_stdin)

    def _step(self, name: str) -> Step | None:
        """A step that the recipe has and that its Skipif does not skip."""
        step = self.steps.get(name)
        try:
            return None if step is None or (step.skipif and skips(step.skipif)) else step
        except RecipeError as error:
            self._say("ERROR", str(error))
            return step

    def _advance_to_running(self) -> None:
        if self.state is State.STARTING:
            self._errors.succeeded(State.STARTING)
            self._set(State.RUNNING)

    def _set(self, state: State) -> None:
        before, self.state = self.state, state
        if before is not state:
            self._host.state_changed(self, before)

    def _say(self, level: Literal["INFO", "WARN", "ERROR"], message: str, event: str = "", **contexts: str) -> None:
        contexts |= {"serviceName": self.name, "currentState": self.state.value}
        self._host.log(self.name, Record(level, "pool-1-thread-1", self.name, event, message, contexts))
