"""What is wrong in a component now, as data: a stable code, a subject, a sentence, since when.

Whoever knows of a problem says `found`, and whoever knows that it is over says `cleared`. A problem is logged once
when it begins, again when its text changes, and once when it is over; health reports carry it in between.
"""

import logging
import threading
import time
from dataclasses import dataclass

from edgeml import redact
from edgeml.log import kv
from edgeml.messages import Problem

log = logging.getLogger(__name__)

MAX_TEXT = 300  # characters
MAX_PROBLEMS = 100  # kept at a time: a flood of subjects must not fill the memory

# What to do about each kind of problem: one sentence for a person. Codes are stable, others read them.
ADVICE = {
    "configuration_refused": "Correct the deployed configuration; the component runs on its last good one meanwhile.",
    "unknown_key": "Correct the key, or remove it with RESET if an older version left it.",
    "unauthorized": 'Deploy with "reset": ["/accessControl"]: an upgrade keeps the access control of the old version.',
    "credentials": "Look at the role alias, its policy, and the log of aws.greengrass.TokenExchangeService.",
    "secret_missing": "Make the secret, let the device's role read it, or correct its name; it is asked for again.",
    "refused": "The receiver will never take these messages as they are: correct topic, bucket or policy.",
    "quarantined": "Correct the reason; what waits in the quarantine folder is sent again after that.",
    "spool_damaged": "What could be read is sent; look at the disk, which a power cut or wear has damaged.",
    "unreachable": "Look at the network, the address and the certificate; the component keeps trying.",
    "unreadable": "Let the component's user read the folder, or run both components as one user.",
    "source_failed": "Look at the camera, port or file and its cable; the component keeps trying.",
    "software_decodes": "Correct hwaccel to what the board has for this video, or leave it away; it works meanwhile.",
    "worker_failed": "A fault of the component: report it with the traceback of its log; the part is tried again.",
    "model_waiting": "Deploy the model bundle, or correct the model's name.",
    "model_refused": "Make a bundle that fits; the text says what was expected and what is there.",
    "provider_failed": "Install the driver and libraries that the text names, or build with another --runtime.",
    "time_zone": "Correct timeZone, or install tzdata on the device.",
    "log_refused": "Correct the regular expression; the other logs are shipped as before.",
    "file_refused": "Make it a regular file of one link, in a folder that only its owner can write.",
    "too_large": "Make it smaller, or raise the limit that the text names.",
    "disk_full": "Free disk space, or lower the caps of the component.",
    "clock": "Let the device reach a time server.",
    "address_in_use": "End the program that has the port, or configure another one; the component keeps trying.",
    # Of the device itself, which edgeml.Monitor looks at.
    "too_hot": "Cool the device: look at its fan, give it air, or give it less to do.",
    "throttled": "Cool the device, or use the power supply that its maker names; until then it computes slower.",
    "under_voltage": "Use the power supply and cable that the device's maker names; until then files may be damaged.",
    "memory_low": "Deploy fewer or smaller pipelines; the kernel ends processes when no memory is left.",
    "memory_stalled": "Deploy fewer or smaller pipelines, or add memory; everything is slow meanwhile.",
    "disk_low": "Delete what is no longer needed, or lower the caps of the components and of logs.",
    "disk_written": "Find what writes so much, snapshots or logs perhaps: memory cards and eMMC wear out by it.",
    "disk_worn": "Save what is on the disk and replace it soon.",
    "no_network": "Look at the cable, the Wi-Fi and the router; what is for the cloud waits on the disk meanwhile.",
    "no_names": "Look at the device's name servers; what is for the cloud waits on the disk meanwhile.",
    "core_silent": "Look at the core's own log, and restart the core if it does not answer again.",
    "packages_large": "Remove the work folders of components that are gone, or raise the Monitor's limit.",
    "child_failed": "Look at the program's output in the log; it is started again.",
}


@dataclass
class _Known:
    text: str
    since: float  # monotonic: the wall clock may jump while the problem lasts


class Problems:
    """The problems of one process; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Known] = {}

    def found(self, code: str, subject: str, text: str) -> None:
        """Say that `subject` (a camera, a pipeline, a folder) has a problem. `code` is a key of ADVICE."""
        if code not in ADVICE:
            raise ValueError(f"there is no problem code {code!r}")
        text = redact.text(text)[:MAX_TEXT]
        with self._lock:
            known = self._known.get((code, subject))
            if known is None and len(self._known) >= MAX_PROBLEMS:
                return
            if known is not None and known.text == text:
                return
            self._known[code, subject] = _Known(text, known.since if known else time.monotonic())
        log.warning("problem: %s %s", text, kv(code=code, subject=subject))

    def cleared(self, code: str, subject: str) -> None:
        """Say that it is over; nothing happens where there was no such problem."""
        with self._lock:
            known = self._known.pop((code, subject), None)
        if known is not None:
            log.info("problem is over %s", kv(code=code, subject=subject, seconds=time.monotonic() - known.since))

    def forget(self, subject: str) -> None:
        """Drop all problems of a part that is gone: those of `subject` and of `subject.` and more."""
        with self._lock:
            for code, known in [key for key in self._known if f"{key[1]}.".startswith(f"{subject}.")]:
                del self._known[code, known]

    def current(self) -> tuple[Problem, ...]:
        """All that is wrong now, the oldest first; `since` in Unix time of the clock as it is now."""
        with self._lock:
            known = list(self._known.items())
        offset = time.time() - time.monotonic()
        problems = [
            Problem(code=code, subject=subject, text=item.text, since=round(item.since + offset, 3))
            for (code, subject), item in known
        ]
        return tuple(sorted(problems, key=lambda problem: problem.since))
