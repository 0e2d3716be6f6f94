"""What the nucleus makes of a component's output, undone where that matters: tracebacks and embedded metrics.

The nucleus logs each line that a component writes as a record of its own, trimmed on both sides, from the thread
`Copier`: `<time> [WARN] (Copier) <component>: stderr. <line>. {scriptName=..., serviceName=..., currentState=...}`.
"""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from log_shipper.records import Records

_HEAD = re.compile(r"\S+ \[\w+\] \(Copier\) [^:]+: std(?:out|err)\. ?")
_CONTEXT = "{scriptName="
_METRICS = "CloudWatchMetrics"  # in all embedded metrics, and found faster in a text than the shorter `_aws`
_START = "Traceback (most recent call last):"
_LINKS = (
    _START,
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)


class Metrics(NamedTuple):
    """A document in CloudWatch's embedded metric format and its own Unix time in ms, 0 if it has none."""

    text: str
    time: int


class Output(NamedTuple):
    """One line of a component's output, taken out of its record: head + body + tail is the record again."""

    head: str
    body: str
    tail: str
    json: dict[str, Any] | None = None

    def with_body(self, body: str) -> str:
        if self.json is not None:
            return msgspec.json.encode({**self.json, "message": body}).decode()
        return f"{self.head}{body}{self.tail}"


def decoded(text: str) -> dict[str, Any] | None:
    """The JSON object that `text` is; None if it is none, nests for ever, or holds numbers beyond all measure."""
    try:
        found = msgspec.json.decode(text)
    except (ValueError, RecursionError):  # ValueError: msgspec's own, and half a surrogate pair
        return None
    return found if isinstance(found, dict) else None


def output_of(record: str) -> Output | None:
    """The component's own line in a record of the nucleus, in either format; None if the record is something else."""
    if record.startswith("{"):
        fields = decoded(record)
        if fields is None or fields.get("thread") != "Copier" or not isinstance(fields.get("message"), str):
            return None
        return Output("", fields["message"], "", fields)
    match = _HEAD.match(record)
    if match is None:
        return None
    body, context, rest = record[match.end() :].rpartition(_CONTEXT)
    if not context:
        return Output(match[0], record[match.end() :], "")
    stop = ". " if body.endswith(". ") else ""
    return Output(match[0], body.removesuffix(". "), stop + context + rest)


def may_hold_metrics(text: str) -> bool:
    """Whether a text may have embedded metrics in it. Most have not one quote, which is found out in no time."""
    return '"' in text and _METRICS in text


def emf_of(line: str) -> Metrics | None:
    """The metrics document that `line` is, or that a component wrote and the nucleus wrapped; else None.

    CloudWatch extracts metrics only from events that are the document and nothing else.
    """
    if not line.startswith('{"_aws"'):
        output = output_of(line)
        if output is not None:
            line = output.body
    if not line.startswith("{") or f'"{_METRICS}"' not in line:
        return None
    metadata = (decoded(line) or {}).get("_aws")
    if not isinstance(metadata, dict):
        return None
    time = metadata.get("Timestamp")
    return Metrics(line, time if isinstance(time, int) else 0)


@dataclass
class _Traceback:
    """Which lines still belong to a traceback; indentation is lost, so the order of its parts must tell."""

    source_may_follow: bool = False
    ended: bool = False

    def takes(self, body: str) -> bool:
        if body in _LINKS:
            self.ended = self.source_may_follow = False
            return True
        if self.ended:
            return not body  # the blank line before "During handling of ..."
        if body.startswith('File "'):
            self.source_may_follow = not body.startswith('File "<')  # <string>, <frozen ...> have no source
        elif self.source_may_follow or body.startswith("[Previous line repeated") or not body.strip("^~ "):
            self.source_may_follow = False
        else:
            self.ended = True  # the exception itself
        return True


def rejoin(records: Records) -> None:
    """Make one record, with the time of its first line, of each traceback that was logged line by line."""
    times, texts, starts = records.times[:], records.texts[:], records.starts[:]
    records.cut(0)
    index = 0
    while index < len(texts):
        end, text = _traceback(texts, index)
        records.times.append(times[index])
        records.texts.append(text)
        records.starts.append(starts[index])
        index = end


def _traceback(texts: list[str], first: int) -> tuple[int, str]:
    """The index after the record that begins at `first`, and its text."""
    output = output_of(texts[first]) if _START in texts[first] else None
    if output is None or output.body != _START:
        return first + 1, texts[first]
    state, bodies, blanks = _Traceback(), [output.body], 0
    for text in texts[first + 1 :]:
        line = output_of(text)
        if line is None or not state.takes(line.body):
            break
        blanks = 0 if line.body else blanks + 1
        bodies.append(line.body)
    bodies = bodies[: len(bodies) - blanks]
    return first + len(bodies), output.with_body("\n".join(bodies))
