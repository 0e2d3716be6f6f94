"""The worker: one job at a time, from the cloud's offer to its outcome in the cloud, across restarts."""

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from edgeml import messages
from edgeml.backoff import Backoff, retry
from edgeml.component import Context
from edgeml.errors import DisconnectedError, EdgemlError, IpcError
from edgeml.log import kv
from edgeml.messages import ModelActivate, ModelStatus
from model_updater.answers import Answers
from model_updater.config import Config
from model_updater.document import Document, parse
from model_updater.errors import JobGone, JobsError, Stopped, UpdateError
from model_updater.installation import Installation, Tools
from model_updater.jobs import Execution, Jobs
from model_updater.journal import Journal, JournalFile, Outcome

log = logging.getLogger(__name__)

MAX_INTERRUPTIONS = 10  # restarts within one step, after which the step itself must be what ends us
ASK_AGAIN_S = 5.0  # an activation may get lost while its receiver starts
RETRY_MIN_S, RETRY_MAX_S = 1.0, 60.0
PROGRESS_S, SHOWN_S = 60.0, 1.0  # of a download, to the cloud and on the core
MAX_REASON = 300  # characters of it that are shown on the core
COMPONENT = "edgeml.ModelUpdater"


class Updater:
    """Runs on a thread of its own until `context.stopping`. `config` may be replaced between two jobs."""

    def __init__(self, context: Context, config: Config) -> None:
        self.config = self._rules = config  # `_rules` are those of the job in hand
        self._context = context
        self._wake = threading.Event()
        self._jobs = Jobs(context.ipc, context.thing_name, self._wake.set)
        self._journal = JournalFile(context.work / "journal")
        self._answers = Answers()
        self._listening: set[str] = set()

    def ask_to_stop(self) -> None:
        """Once `context.stopping` is set: no waiting goes on. Any thread may call it."""
        self._wake.set()
        self._jobs.close()

    def run(self) -> None:
        try:
            self._settle()
            while not self._context.stopping.is_set():
                self._wake.clear()
                execution = self._retried("start-next", self._jobs.start_next)
                self._close_other(execution)
                if execution is None:
                    self._context.health.note("job", "")
                    self._wake.wait(self.config.poll_interval_s)
                else:
                    self._work_on(execution)
        except Stopped:
            log.info("stopped in the middle of a job; it goes on after the next start")

    def _settle(self) -> None:
        """What needs no cloud: a version that is active but not confirmed must not stay so until we are online."""
        journal = self._journal.load()
        if journal is None or journal.document is None:
            return
        log.info(
            "job found %s", kv(job=journal.job_id, done=journal.done or "nothing", outcome=journal.outcome or "none")
        )
        if journal.outcome is None and self._installation(journal, journal.document).active:
            self._install(journal, journal.document)
        if journal.outcome is not None:
            self._tidy(journal, journal.outcome)

    def _close_other(self, execution: Execution | None) -> None:
        """A job in the journal that the cloud no longer offers was cancelled, timed out, or only lacks its report."""
        journal = self._journal.load()
        if journal is None or (execution is not None and journal.is_about(execution)):
            return
        if journal.outcome is None:
            self._end(journal, Outcome("abandoned", {"reason": "the cloud does not offer this job any more"}))
        self._finish(journal)

    def _work_on(self, execution: Execution) -> None:
        journal = self._journal.load()
        if journal is None:
            journal = Journal(job_id=execution.job_id, execution_number=execution.execution_number, document=None)
            self._rules = self.config
            log.info("job %s", kv(job=execution.job_id, execution=execution.execution_number))
        if journal.outcome is None:
            self._attempt(journal, execution)
        self._finish(journal)

    def _attempt(self, journal: Journal, execution: Execution) -> None:
        try:
            document = parse(execution.job_document)
        except EdgemlError as error:
            self._failed(journal, "document", error)
            return
        # The URL is the only thing that may change of a job: what the journal calls done was done with its document.
        offered = msgspec.structs.replace(document, deployment_artifact_path="-")
        if journal.document is not None and journal.document != offered:
            log.warning("the job has another document now, beginning anew %s", kv(job=journal.job_id))
            self._forget_steps(journal, journal.document)
        journal.document = offered
        self._install(journal, document)

    def _forget_steps(self, journal: Journal, document: Document) -> None:
        """Put back what was done with `document`, so that the job can begin at its first step."""
        installation = self._installation(journal, document)
        installation.undo()
        installation.clean()
        journal.done = journal.previous = journal.from_version = ""

    def _install(self, journal: Journal, document: Document) -> None:
        """All steps that are left. The journal has an outcome afterwards, unless we are stopped."""
        installation = self._installation(journal, document)
        names = [name for name, _ in installation.steps()]
        left = installation.steps()[names.index(journal.done) + 1 if journal.done else 0 :]
        following = left[0][0] if left else journal.done
        journal.interruptions += 1
        if journal.interruptions > MAX_INTERRUPTIONS:
            self._failed(
                journal, following, UpdateError(f"this step was interrupted more than {MAX_INTERRUPTIONS} times")
            )
            return
        try:
            self._journal.save(journal)
        except OSError as error:
            self._failed(journal, following, error)
            return
        for name, step in left:
            log.info("step %s", kv(step=name, job=journal.job_id, model=document.model_name))
            self._take(journal, name, step)
            if journal.outcome is not None:
                return
        self._end(journal, Outcome("SUCCEEDED", _versions(journal)))

    def _take(self, journal: Journal, name: str, step: Callable[[], None]) -> None:
        """One step; the journal knows afterwards that it is done, or has the outcome of a job that ended with it."""
        try:
            self._tell(journal, name)
            step()
            journal.done, journal.interruptions = name, 0
            self._journal.save(journal)
        except (Stopped, DisconnectedError):  # the job is as good as before: it goes on after the next start
            journal.interruptions = 0  # it was not this step that ended us
            with contextlib.suppress(OSError):
                self._journal.save(journal)
            raise
        except JobGone as error:
            self._end(journal, Outcome("abandoned", {"reason": str(error)}))
        except (EdgemlError, OSError) as error:
            self._failed(journal, name, error)
        except Exception as error:  # a job that ends the process would be offered again for ever
            log.exception("step %s", kv(step=name, job=journal.job_id))
            self._failed(journal, name, UpdateError(f"internal error: {type(error).__name__}: {error}"))

    def _installation(self, journal: Journal, document: Document) -> Installation:
        address = document.deployment_artifact_path

        def url(renew: bool) -> str:
            nonlocal address
            if renew:
                address = parse(self._jobs.get(journal.job_id).job_document).deployment_artifact_path
            return address

        reported = shown = time.monotonic()

        def progress(done: int) -> None:
            nonlocal reported, shown
            if time.monotonic() - shown > SHOWN_S:
                self._show(journal, "updating", step="download", progress=done / document.size)
                shown = time.monotonic()
            if time.monotonic() - reported > PROGRESS_S:
                self._tell(journal, "download", f"{done * 100 // document.size} %")
                reported = time.monotonic()  # after the wait for an answer, lest each chunk waits again

        tools = Tools(url, self._confirm, progress, self._context.stopping)
        return Installation(journal, self._rules, self._context.work, self._context.root, tools)

    def _tell(self, journal: Journal, step: str, progress: str = "") -> None:
        """Best effort: a device that is offline for the moment goes on. Raises JobGone."""
        self._context.health.note("job", f"{journal.job_id}: {step}")
        if not progress:
            self._show(journal, "updating", step=step)
        if step in ("switch", "confirm"):  # a matter of moments, and possibly before we are online
            return
        details = {**_versions(journal), "step": step, **({"progress": progress} if progress else {})}
        try:
            self._jobs.update(journal.execution, "IN_PROGRESS", details)
        except JobGone:
            raise
        except (IpcError, JobsError) as error:
            log.warning("progress not reported %s", kv(error=error))

    def _show(self, journal: Journal, status: Literal["updating", "installed", "failed"], **more: Any) -> None:
        """To who looks at this device. An older deployment does not allow it, and nobody needs it to go on.

        What is not admitted is not shown: whoever makes jobs could name models that there are not.
        """
        if journal.document is None or not journal.done:
            return
        model, version = journal.document.model_name, journal.document.model_version
        told = ModelStatus(model=model, version=version, status=status, component=COMPONENT, **more)
        try:
            self._context.ipc.publish(messages.model_status(model), messages.encode(told), wait=1.0)
        except DisconnectedError:
            raise
        except IpcError as error:
            log.debug("progress not shown %s", kv(error=error))

    def _failed(self, journal: Journal, step: str, error: BaseException) -> None:
        log.error("job failed %s", kv(job=journal.job_id, step=step, reason=error))
        self._context.health.error(error)
        self._end(journal, Outcome("FAILED", {**_versions(journal), "step": step, "reason": str(error)}))

    def _end(self, journal: Journal, outcome: Outcome) -> None:
        """Settle the outcome. Where the disk is full it stays in memory, and is reported all the same."""
        journal.outcome = outcome
        try:
            self._journal.save(journal)
        except OSError as error:
            log.error("outcome not recorded, making room %s", kv(job=journal.job_id, reason=error))
            shutil.rmtree(self._context.work / "job", ignore_errors=True)
            with contextlib.suppress(OSError):
                self._journal.save(journal)
        reason = outcome.details.get("reason", "")[:MAX_REASON]
        self._show(journal, "installed" if outcome.status == "SUCCEEDED" else "failed", reason=reason)

    def _finish(self, journal: Journal) -> None:
        """Report the outcome until the cloud has heard, then forget the job. May be repeated."""
        outcome = journal.outcome
        if outcome is None:
            raise ValueError(f"job {journal.job_id} has no outcome")
        self._tidy(journal, outcome)
        if outcome.status != "abandoned":
            self._retried("report", lambda: self._report(journal, outcome))
        self._journal.clear()
        self._context.health.count(f"jobs.{outcome.status.lower()}")
        log.info("job ended %s", kv(job=journal.job_id, status=outcome.status, **outcome.details))

    def _tidy(self, journal: Journal, outcome: Outcome) -> None:
        if journal.document is not None:
            installation = self._installation(journal, journal.document)
            if outcome.status != "SUCCEEDED":
                installation.undo()
            installation.clean()

    def _report(self, journal: Journal, outcome: Outcome) -> None:
        try:
            self._jobs.update(journal.execution, outcome.status, outcome.details)
        except JobGone as error:
            log.warning("the cloud no longer waits for this job %s", kv(job=journal.job_id, answer=error))

    def _confirm(self, activation: ModelActivate) -> str:
        """Ask the users of a model whether they run the new version; "" for yes, else the reason against it."""
        topic = messages.model_status(activation.model)
        if activation.model not in self._listening:
            self._context.ipc.subscribe(topic, lambda topic, payload: self._answers.put(payload))
            self._listening.add(activation.model)
        question = self._answers.expect(activation)
        deadline = time.monotonic() + self._rules.confirmation_timeout_s
        while (left := deadline - time.monotonic()) > 0:
            self._context.ipc.publish(messages.model_activate(activation.model), messages.encode(activation))
            again = time.monotonic() + min(left, ASK_AGAIN_S)
            while not question.answered.wait(0.1) and time.monotonic() < again:
                if self._context.stopping.is_set():
                    raise Stopped
            if (answer := question.answer) is not None:
                return "" if answer.status == "accepted" else f"{answer.component} refused the model: {answer.reason}"
        if self._rules.require_confirmation:
            return f"nobody who uses {activation.model} answered within {self._rules.confirmation_timeout_s:g} s"
        return ""

    def _retried(self, what: str, request: Any) -> Any:
        """The request's answer, asked for until there is one. Raises Stopped."""

        def failed(error: Exception, pause_s: float) -> None:
            log.warning("will try again %s", kv(what=what, error=error, pause_s=pause_s))
            self._context.health.error(error)

        backoff = Backoff(RETRY_MIN_S, RETRY_MAX_S, floor_s=RETRY_MIN_S / 2)
        no_answer = (IpcError, JobsError)
        try:
            return retry(request, no_answer, backoff=backoff, stopping=self._context.stopping, failed=failed)
        except no_answer:
            raise Stopped from None


def _versions(journal: Journal) -> dict[str, str]:
    if journal.document is None:
        return {}
    document = journal.document
    return {
        "model": document.model_name,
        "from_version": journal.from_version or "none",
        "to_version": document.model_version,
    }
