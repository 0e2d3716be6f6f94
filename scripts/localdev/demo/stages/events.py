"""What happens to the people of stage `tracks`: on the local topic, and the same on IoT Core."""

import json
import time
from typing import Any

from localdev.demo.stage import Configuration, Evidence, Stage
from localdev.demo.stages.tracks import VISITS

DESK = {"points": [[0.72, 0.1], [0.94, 0.1], [0.94, 0.8], [0.72, 0.8]], "where": "centre", "dwell_s": 1}
STORIES = {  # of the three who come, again and again
    ("appeared", "crossed middle to the right", "left"): "walked to the right",
    ("appeared", "entered desk", "dwelled desk", "left_zone desk", "left"): "stood at the desk",
    ("appeared", "crossed middle to the left", "left"): "walked to the left",
}
ARRIVE_S = 10.0


class Events(Stage):
    name = "events"
    title = "who came, crossed a line, stayed in a zone and went"
    needs = ("tracks",)

    def prepare(self) -> None:
        self._stories: dict[int, list[str]] = {}  # by track
        self._counts: list[int] = []
        self._ids: set[str] = set()
        self._arrived: set[str] = set()
        self._told: list[tuple[str, ...]] = []
        self._missing = 0

    def configuration(self) -> Configuration:
        return {"inferencer": {"pipelines": {"hall": {"events": {"zones": {"desk": DESK}}}}}}

    def begin(self) -> None:
        self.world.hear("edgeml/event/hall", self._event)
        self.world.iot.hear("ModelInference", self._message)

    def _event(self, topic: str, payload: bytes) -> None:
        event = json.loads(payload)
        self._ids.add(event["id"])
        if event["event"] == "count_changed":
            self._counts.append(event["count"])
            return
        self._stories.setdefault(event["track"], []).append(worded(event))

    def _message(self, topic: str, payload: bytes) -> None:
        message = json.loads(payload)
        if message["pipeline"] == "hall":
            self._arrived.add(message["id"])

    def progress(self) -> str:
        newest = list(self._stories.values())[-1:]
        return f"{len(self._ids)} events, the last: {', '.join(newest[0]) if newest else 'none'}"

    def finish(self) -> None:
        ids, deadline = set(self._ids), time.monotonic() + ARRIVE_S  # more may happen while we look
        # Whoever was there when we came was seen only in part.
        self._told = [tuple(story) for story in list(self._stories.values())[1:] if "left" in story]
        while ids - self._arrived and time.monotonic() < deadline:
            time.sleep(0.1)
        self._missing = len(ids - self._arrived)

    def evidence(self) -> Evidence:
        people = [STORIES.get(story, ", ".join(story)) for story in self._told]
        figures: dict[str, Any] = {
            "people": {words: people.count(words) for words in dict.fromkeys(people)},
            "counts": self._counts[-6:],
            "events": len(self._ids),
            "not_on_iot_core": self._missing,
        }
        return Evidence(
            right(self._told) and not self._missing,
            figures,
            f"expected of each person one of: {'; '.join(STORIES.values())}",
        )


def worded(event: dict[str, Any]) -> str:
    """An event of a person: what, where, which way."""
    words = [event["event"], event.get("zone") or event.get("line", "")]
    words += ["to the", event["direction"]] if "direction" in event else []
    return " ".join(filter(None, words))


def right(stories: list[tuple[str, ...]]) -> bool:
    """Whether these people did what people do in the scene, and are enough to say so."""
    return len(stories) >= len(VISITS) - 1 and all(story in STORIES for story in stories)
