"""Objects that are followed: how well, beside another tracker on the same boxes, and what each rule does."""

import itertools
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracking_support as support
from edgeml.errors import ConfigError
from edgeml.messages import Detection, ModelRef, SampleRef
from inferencer.assembly import check
from inferencer.backends.onnx import OnnxBackend
from inferencer.parts import Model
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources.camera import CameraSource
from inferencer.sources.request import RequestSource
from inferencer.tracking import Tracking, tracker
from inferencer.tracking.tracked import Ids, Tracked
from inferencer.tracking.tracker import Tracker
from inferencer.tracks import Step
from inferencer_support import make_context, picture, place
from inferencer_support import pipeline as pipeline_of

REFERENCE = json.loads((Path(__file__).parents[1] / "peers/trackers_reference.json").read_text(encoding="utf-8"))
NOISE = 0.01  # of a mean of six runs
AHEAD = {5.0: 0.03, 2.5: 0.1}


def followed(frames: list[support.Frame], rate: float = 0.0) -> list[tuple[Any, list[int]]]:
    following, answers = new(), []
    for frame in frames:
        found = [
            Detection("person", float(score), tuple(box)) for score, box in zip(frame.scores, frame.boxes, strict=True)
        ]
        owners = following.update(found, 0.5, frame.at, 1e9 + frame.at).tracks
        told = [index for index, owner in enumerate(owners) if owner is not None]
        answers.append((frame.boxes[told], [owner.id for owner in owners if owner is not None]))
    return answers


def new(**settings: Any) -> Tracker:
    return Tracker(itertools.count(1).__next__, **settings)


def box(
    x: float, y: float = 100.0, w: float = 40.0, h: float = 100.0, *, score: float = 0.9, label: str = "person"
) -> Detection:
    """By its centre."""
    return Detection(label, score, (x - w / 2, y - h / 2, w, h))


def walk(following: Tracker, frames: Sequence[tuple[float, list[Detection]]]) -> list[Step]:
    return [following.update(found, 0.5, at, 1e9 + at) for at, found in frames]


def ids(step: Step) -> list[int | None]:
    return [track.id if track is not None else None for track in step.tracks]


@pytest.mark.parametrize("rate", support.RATES)
def test_ids_are_kept_as_well_as_by_another_tracker_and_better_at_low_rates(rate: float) -> None:
    figures = {name: support.mean_idf1(one, followed) for name, one in support.sequences([rate]).items()}
    ahead = {name: value - REFERENCE["idf1"][name] for name, value in figures.items()}
    assert min(ahead.values()) > -NOISE, ahead
    clips = [value for name, value in ahead.items() if name.startswith("TUD")]
    assert np.mean(clips) >= AHEAD.get(rate, 0.0), ahead
    assert np.mean([value for name, value in ahead.items() if name.startswith("crowd")]) >= 0.1, ahead


@pytest.mark.parametrize("rate", [25, 10, 5, 2.5])
@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
def test_two_who_cross_keep_their_ids(rate: float, uneven: bool) -> None:
    times = np.arange(0, 8, 1 / rate)
    if uneven:  # the shortest and longest steps of a real clip
        steps = np.where(np.arange(len(times)) % 3 == 0, 1.55, 0.78) / rate
        times = np.cumsum(steps)[np.cumsum(steps) < 8]
    following = new()
    steps_ = walk(following, [(at, [box(60 + 60 * at), box(540 - 60 * at, 108)]) for at in times])
    assert {tuple(ids(step)) for step in steps_} == {(1, 2)}


@pytest.mark.parametrize("rate", [25, 5, 2.5])
def test_who_was_hidden_for_a_second_is_who_he_was(rate: float) -> None:
    frames = [(at, [] if 2 < at < 3.2 else [box(60 + 50 * at)]) for at in np.arange(0, 6, 1 / rate)]
    assert {one for step in walk(new(), frames) for one in ids(step)} == {1}


def test_after_a_long_absence_somebody_is_somebody_else() -> None:
    steps = walk(
        new(lost_s=2.0), [(at / 5, [box(100)]) for at in range(10)] + [(30 + at / 5, [box(100)]) for at in range(3)]
    )
    assert [ids(step) for step in steps[-4:]] == [[1], [2], [2], [2]]
    assert [track.id for track in steps[10].ended] == [1]


def test_a_camera_that_slows_down_loses_nobody() -> None:
    times = [*np.arange(0, 4, 0.1), *np.arange(4, 8, 0.2), *np.arange(8, 16, 0.4), *np.arange(16, 18, 0.04)]
    assert {one for step in walk(new(), [(at, [box(60 + 40 * at)]) for at in times]) for one in ids(step)} == {1}


@pytest.mark.parametrize("odd", [box(160, h=150), box(160, w=64, h=80), box(178)], ids=["high", "wide", "aside"])
def test_a_box_that_is_odd_for_a_moment_is_nobody_else(odd: Detection) -> None:
    """Half hidden behind a post, say; jitter as that of good boxes would not explain it."""
    frames = [(at / 10, [box(100 + 2 * at)] if at != 30 else [odd]) for at in range(40)]
    assert {one for step in walk(new(), frames) for one in ids(step)} == {1}


def test_another_class_is_another_object() -> None:
    both = [box(101), box(101, label="dog")]
    steps = walk(new(), [(0, [box(100)]), (0.1, [box(100)]), (0.2, both), (0.3, both)])
    assert [ids(step) for step in steps] == [[1], [1], [1, None], [1, 2]]


def test_an_unsure_detection_goes_on_with_an_object_and_begins_none() -> None:
    sure, unsure = box(100), box(101, score=0.2)
    steps = walk(
        new(), [(0, [box(300, score=0.2)]), (0.1, [sure]), (0.2, [sure]), (0.3, [unsure, box(300, score=0.2)])]
    )
    assert [ids(step) for step in steps] == [[None], [None], [1], [1, None]]


def test_what_was_seen_once_ends_with_the_next_frame() -> None:
    steps = walk(new(), [(0, [box(100)]), (0.1, []), (0.2, [box(100)])])
    assert [ids(step) for step in steps] == [[1], [], [None]]
    assert [track.id for track in steps[1].ended] == [1]


@pytest.mark.parametrize(("step_s", "told"), [(0.1, False), (0.5, True)])
def test_where_frames_are_rare_an_object_is_told_of_at_once(step_s: float, told: bool) -> None:
    steps = walk(new(), [(0, [box(100)]), (step_s, [box(100), box(300)]), (2 * step_s, [box(100), box(300)])])
    assert [ids(step) for step in steps] == [[1], [1, 2 if told else None], [1, 2]]


def test_standing_is_stationary_and_moving_wakes() -> None:
    random, following = np.random.default_rng(0), new(stationary_s=3.0)
    at, states = 0.0, []
    for x in [*[100.0] * 60, *np.linspace(100, 300, 20)]:
        at += 0.1
        (track,) = following.update([box(x + random.normal(0, 2), 100 + random.normal(0, 3))], 0.5, at, at).tracks
        assert track is not None
        states.append(track.stationary)
    assert not any(states[:29])
    assert all(states[35:60])
    assert not any(states[66:])


def test_slow_movement_is_movement() -> None:
    steps = walk(new(stationary_s=3.0), [(at / 10, [box(100 + 0.8 * at)]) for at in range(200)])
    assert not any(track.stationary for step in steps for track in step.tracks if track)


def test_speed_is_in_pixels_per_second_whatever_the_rate() -> None:
    for rate in (25, 5, 2.5):
        (track,) = walk(new(), [(at, [box(60 + 50 * at)]) for at in np.arange(0, 4, 1 / rate)])[-1].tracks
        assert track is not None
        assert track.speed == pytest.approx(50, rel=0.1)


def test_the_number_of_tracks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "MAX_TRACKS", 10)
    following = new()
    steps = walk(following, [(at / 10, [box(60.0 * n, 60.0 * at) for n in range(30)]) for at in range(20)])
    assert len(following.tracks) == 10
    assert len(steps[-1].tracks) == 30


@pytest.mark.parametrize(
    "odd",
    [(0, 0, 0, 0), (5, 5, 0, 10), (1e6, 1e6, 1, 1), (-50, -50, 20, 20), (0, 0, 1e5, 1e5)],
    ids=["nothing", "a line", "far", "outside", "huge"],
)
def test_odd_boxes_do_no_harm(odd: tuple[float, float, float, float]) -> None:
    steps = walk(new(), [(at / 10, [box(100), Detection("person", 0.9, odd)]) for at in range(5)])
    assert [ids(step)[0] for step in steps] == [1] * 5


def test_ids_are_never_given_again(tmp_path: Path) -> None:
    path = tmp_path / "tracks"
    given = [number for _ in range(3) for kept in [Ids(path)] for number in [kept.next() for _ in range(1200)]]
    assert len(set(given)) == 3600
    path.write_text("no number", encoding="utf-8")
    assert Ids(path).next() > max(given)
    path.unlink()
    path.mkdir()  # neither read nor written
    unkept = Ids(path)
    assert unkept.next() < unkept.next()


class Answers(Model):
    """A model that finds what it is given."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.found: list[Detection] = []
        self.threshold = threshold

    def poll(self) -> bool:
        return True

    def infer(self, sample: Sample) -> Outcome | None:
        found: Any = list(self.found)
        return Outcome("detection", ModelRef("m", "1"), found, Timer(), "onnx", self.threshold)


def frame(at: float, **fields: Any) -> Sample:
    return Sample(picture(), SampleRef(camera="c", captured_at=1e9 + at), int(at * 1e9), "bgr24", **fields)


def tracked(tmp_path: Path, model: Model, **settings: Any) -> Tracked:
    return Tracked(model, Tracking(**settings), place(make_context(tmp_path)))


def asked(model: Model, at: float) -> Outcome:
    outcome = model.infer(frame(at))
    assert outcome is not None
    return outcome


def test_while_all_stand_still_each_nth_frame_is_looked_at(tmp_path: Path) -> None:
    answers = Answers()
    model = tracked(tmp_path, answers, stationary_s=2.0, stationary_every=5)
    looked = []
    for number in range(200):
        answers.found = [box(100 if number < 100 else 100 + 4 * (number - 100))]
        looked.append(model.infer(frame(number / 10)) is not None)
    assert all(looked[:20])
    assert sum(looked[30:100]) == 14
    assert all(looked[115:])  # who moves is seen by a fifth frame, has moved enough after a few of those, and wakes


def test_detections_are_told_their_track(tmp_path: Path) -> None:
    answers = Answers()
    model = tracked(tmp_path, answers)
    for number in range(8):
        answers.found = [box(100 + 5 * number), box(400, score=0.2)]
        outcome = asked(model, number / 10)
    assert outcome.step is not None
    (one,) = outcome.results  # the unsure one is nobody's
    assert (one.track, one.since, one.stationary) == (1, 1e9, False)
    assert one.speed == pytest.approx(50, rel=0.2)
    answers.found = [box(140, score=0.2), box(400, score=0.2)]
    assert [one.track for one in asked(model, 0.8).results] == [1]


def test_a_sample_that_comes_late_keeps_its_detections(tmp_path: Path) -> None:
    answers = Answers()
    answers.found = [box(100)]
    model = tracked(tmp_path, answers)
    assert [asked(model, at).results[0].track for at in (1.0, 1.1, 1.05, 1.1, 1.2)] == [1, 1, 0, 0, 1]
    assert asked(model, 1.15).step is None


def test_several_threads_may_ask(tmp_path: Path) -> None:
    answers = Answers()
    answers.found = [box(100)]
    model, times = tracked(tmp_path, answers), itertools.count(1)
    found: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: found.extend(asked(model, next(times) / 10).results[0].track for _ in range(50))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {0, 1}
    assert len(found) == 200


def test_other_results_are_left_alone(tmp_path: Path) -> None:
    class Nothing(Answers):
        def infer(self, sample: Sample) -> Outcome | None:
            return None

    assert tracked(tmp_path, Nothing()).infer(frame(1)) is None


def test_only_sources_of_frames_have_objects_that_go_on() -> None:
    backend = OnnxBackend(model="Tiny")
    check({"p": pipeline_of(backend, CameraSource(camera="c"), tracking=Tracking())}, "thing")
    with pytest.raises(ConfigError, match=r"pipelines\.p\.tracking.*camera or a timer"):
        check({"p": pipeline_of(backend, RequestSource(), tracking=Tracking())}, "thing")
