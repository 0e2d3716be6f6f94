"""Cuts the power at every single change of the file system while a model is installed, and looks at what is left.

Run as a process of its own: each round forks, installs with an audit hook that kills the process (SIGKILL) at the n-th
change, then forks again to go on from what is there. Prints the number of changes an installation makes.
"""

import itertools
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from edgeml import models
from edgeml.errors import EdgemlError
from model_updater.config import Config
from model_updater.document import parse
from model_updater.installation import Installation, Tools
from model_updater.journal import Journal, JournalFile

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "os.utime", "shutil.rmtree"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CUT, DONE, REFUSED = -signal.SIGKILL, 0, 3


def cut_at(number: int) -> None:
    """Kill this process at the n-th change it is about to make."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def install(root: Path, job: dict[str, Any], refuse: bool) -> int:
    """What the updater does with one job, without the cloud."""
    os.fsync = lambda fd: None  # SIGKILL takes nothing from the disk's cache, and this is done some 100 times
    work = root / "work" / "edgeml.ModelUpdater"
    document = parse(job)
    file = JournalFile(work / "journal")
    journal = file.load() or Journal(job_id="j", execution_number=1, document=document)
    tools = Tools(
        url=lambda renew: document.deployment_artifact_path,
        confirm=lambda activation: "refused by the test" if refuse else "",
        progress=lambda done: None,
        stopping=threading.Event(),
    )
    installation = Installation(journal, Config(allow_http=True, min_free_bytes=0, keep_versions=0), work, root, tools)
    steps = [step for step in installation.steps() if step[0] != "probe"]  # changes nothing, and takes its time
    names = [name for name, _ in steps]
    try:
        for name, step in steps[names.index(journal.done) + 1 if journal.done else 0 :]:
            step()
            journal.done = name
            file.save(journal)
    except EdgemlError:
        installation.undo()
        installation.clean()
        file.clear()
        return REFUSED
    installation.clean()
    file.clear()
    return DONE


def in_child(root: Path, job: dict[str, Any], refuse: bool, cut: int = 0) -> int:
    child = os.fork()
    if child == 0:
        try:
            if cut:
                cut_at(cut)
            os._exit(install(root, job, refuse))
        except BaseException as error:  # noqa: BLE001  (a fork must not return into the parent's loop)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(template: Path, scratch: Path, job: dict[str, Any], refuse: bool) -> None:
    old, new = "1.0.0", job["model_version"]
    for cut in itertools.count(1):
        root = scratch / str(cut)
        shutil.copytree(template, root, symlinks=True)
        first = last = in_child(root, job, refuse, cut)
        check(active(root) in (old, new), cut, "neither the old nor the new version is active")
        if first == CUT:
            last = in_child(root, job, refuse)
        check(last == (REFUSED if refuse else DONE), cut, f"ended with {last}")
        check(active(root) == (old if refuse else new), cut, f"{active(root)} is active in the end")
        work = root / "work" / "edgeml.ModelUpdater"
        left = sorted(str(path.relative_to(work)) for path in work.rglob("*") if not path.match("models/Tiny/current"))
        folders = ["journal", "models", "models/Tiny", "models/Tiny/versions"]
        check(left[:4] == folders and len(left) == 4 + 3, cut, f"left behind: {left}")  # and a version of two files
        shutil.rmtree(root)
        if first != CUT:
            print(cut - 1)
            return


def active(root: Path) -> str:
    """Version of the active bundle, every file compared with its hash."""
    return models.load(models.updater_folder(root, "Tiny")).manifest.version


def check(good: bool, cut: int, problem: str) -> None:
    if not good:
        raise SystemExit(f"power cut at change {cut}: {problem}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4] == "refuse")
