"""Whether the Greengrass core answers: on a core that hangs, components run and nothing they say arrives."""

from dataclasses import dataclass

from monitor.vitals.check import Finding, Seen, Standing, Vital
from monitor.vitals.limits import Limits

FAILURES = 2


@dataclass(frozen=True)
class Core:
    """`failures` to answer in a row; `took_s` is None until it has answered once."""

    version: str
    failures: int
    took_s: float | None


def judge(found: Core, limits: Limits, standing: Standing) -> Seen:
    silent = found.failures >= FAILURES
    if found.took_s is None and not silent:
        return Seen()
    text = "does not answer" if silent else found.version or "answers"
    vitals = {"core_answer": Vital(found.took_s or 0.0, "Core", "seconds", text=text, problem=silent)}
    finding = Finding("core_silent", "core", "the Greengrass core does not answer")
    return Seen(vitals, (finding,) if silent else ())
