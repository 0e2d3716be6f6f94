"""Results as messages."""

import msgspec

from edgeml import messages
from edgeml.messages import InferenceResult

# Times in what goes to IoT Core, results, events and telemetry alike, in seconds.
TIMES = {"source.captured_at": 1, "at": 1, "since": 1, "results.since": 1, "ts": 1, "data.ts": 1}


def fitted(result: InferenceResult, limit: int) -> bytes:
    """JSON of `result` in at most `limit` bytes: the least sure results of a list go first, and how many is told.

    It is encoded once for all sinks that it fits, and once for each limit that it does not.
    """
    made: dict[int, bytes] = vars(result).setdefault("made", {})  # by limit; 0 is the whole
    if (data := made.get(0)) is None:
        data = made[0] = messages.encode(result)
    if len(data) <= limit:
        return data
    if limit not in made:
        made[limit] = _cut(result, data, limit)
    return made[limit]


def _cut(result: InferenceResult, data: bytes, limit: int) -> bytes:
    kept = result.results
    while len(data) > limit and isinstance(kept, list) and kept:
        kept = kept[: min(len(kept) - 1, len(kept) * limit // len(data))]
        data = messages.encode(msgspec.structs.replace(result, results=kept, truncated=len(result.results) - len(kept)))
    return data
