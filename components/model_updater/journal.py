"""What has been done of the job in hand, on disk before the next step begins."""

from pathlib import Path
from typing import Literal

import msgspec

from edgeml.files import write_atomic
from model_updater.document import Document
from model_updater.jobs import Execution

STEPS = ("admit", "download", "unpack", "inspect", "probe", "place", "switch", "confirm")


class Outcome(msgspec.Struct, frozen=True):
    """How the job ended; `abandoned` is told to nobody, because the cloud has given the job up itself."""

    status: Literal["SUCCEEDED", "FAILED", "abandoned"]
    details: dict[str, str]


class Journal(msgspec.Struct, kw_only=True):
    """`document` carries no URL: that is a secret, and stale after a restart. `done` is the last completed step."""

    job_id: str
    execution_number: int
    document: Document | None
    done: str = ""
    interruptions: int = 0
    previous: str = ""
    from_version: str = ""
    outcome: Outcome | None = None

    @property
    def execution(self) -> Execution:
        return Execution(self.job_id, "IN_PROGRESS", self.execution_number)

    def is_about(self, execution: Execution) -> bool:
        return (self.job_id, self.execution_number) == (execution.job_id, execution.execution_number)


class JournalFile:
    """The one journal, in a folder of its own, or none between jobs."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "job.json"

    def load(self) -> Journal | None:
        """None also for a file of another version of this component: the cloud offers its job again."""
        try:
            journal = msgspec.json.decode(self._path.read_bytes(), type=Journal)
        except (FileNotFoundError, msgspec.MsgspecError, ValueError, RecursionError):
            return None
        return journal if journal.done in ("", *STEPS) else None

    def save(self, journal: Journal) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(self._path, msgspec.json.encode(journal), mode=0o600)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
        for unfinished in self._path.parent.glob(".*"):  # the power went while one was written
            unfinished.unlink()
