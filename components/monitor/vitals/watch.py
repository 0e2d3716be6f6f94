"""All checks, round by round: their values, and their problems found and cleared."""

import logging
import threading
from collections.abc import Sequence

from edgeml.log import kv
from edgeml.problems import Problems
from monitor.vitals.check import Check, Seen, Vital
from monitor.vitals.limits import Limits

log = logging.getLogger(__name__)

OVER_AFTER = 2  # rounds in a row that do not find it any more


class Watch:
    """Of one device; `round` is for one thread, `vitals` for any. A check that fails costs the others nothing."""

    def __init__(self, checks: Sequence[Check], problems: Problems) -> None:
        self._checks, self._problems = checks, problems
        self._lock = threading.Lock()
        self._vitals: dict[str, dict[str, Vital]] = {}
        self._standing: dict[str, dict[tuple[str, str], int]] = {
            check.name: {} for check in checks
        }  # rounds without it
        self._failed: dict[str, str] = {}

    def vitals(self) -> dict[str, Vital]:
        """The values of the last round, by name."""
        with self._lock:
            return {name: vital for seen in self._vitals.values() for name, vital in seen.items()}

    def round(self, limits: Limits) -> None:
        for check in self._checks:
            if check.name in limits.skip:
                self._off(check)
                continue
            seen = self._seen(check, limits)
            self._tell(check, seen)
            with self._lock:
                self._vitals[check.name] = seen.vitals

    def _off(self, check: Check) -> None:
        self._tell(check, Seen(), at_once=True)
        with self._lock:
            self._vitals.pop(check.name, None)

    def _seen(self, check: Check, limits: Limits) -> Seen:
        try:
            read = check.read()
            seen = Seen() if read is None else check.judge(read, limits, self._standing[check.name].keys())
        except Exception as error:  # what a strange kernel says is no reason to look at nothing else
            if self._failed.get(check.name) != repr(error):
                self._failed[check.name] = repr(error)
                log.exception("check failed %s", kv(check=check.name, error=repr(error)))
            return Seen()
        self._failed.pop(check.name, None)
        return seen

    def _tell(self, check: Check, seen: Seen, *, at_once: bool = False) -> None:
        standing = self._standing[check.name]
        for finding in seen.findings:
            self._problems.found(*finding)
            standing[finding.code, finding.subject] = 0
        for key in standing.keys() - {(finding.code, finding.subject) for finding in seen.findings}:
            standing[key] += 1
            if at_once or standing[key] >= OVER_AFTER:
                del standing[key]
                self._problems.cleared(*key)
