"""Which frames of a real ring are shown to whom, with which results, and what is done for that."""

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from monitor import pictures as rules
from shown_pictures_support import FACE, SIZES, Rig
from support import eventually


@pytest.mark.parametrize("size", SIZES)
def test_a_frame_that_no_pipeline_reads_is_shown_at_once_as_wide_as_wanted(tmp_path: Path, size: str) -> None:
    rig = Rig(tmp_path, *SIZES[size])
    try:
        rig.configured()
        rig.watch(960)
        rig.watch(200)
        rig.attached()
        frame_id, at = rig.frame()
        eventually(lambda: len(rig.shown) == 2, 10, "a picture of each width")
        for picture in rig.shown:
            image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert image is not None
            assert image.shape[1::-1] == (picture.width, picture.height)
            assert (picture.frame_id, picture.captured_at, picture.results) == (frame_id, at, b"[]")
            assert (picture.source_width, picture.source_height) == SIZES[size]
        assert {picture.width for picture in rig.shown} == {960, 320}
    finally:
        rig.close()


def test_nothing_is_done_while_nobody_watches_and_once_for_all_who_do(rig: Rig) -> None:
    rig.configured()
    rig.frame()
    assert not rig.threads
    first, second = rig.watch(), rig.watch()
    rig.attached()
    before = rig.health.counter("pictures")
    rig.frame()
    eventually(lambda: len(rig.shown) == 2, 10, "both have it")
    assert rig.shown[0] is rig.shown[1]
    assert rig.health.counter("pictures") == before + 1
    assert len(rig.threads) == 1
    first()
    second()
    rig.threads[0].join(5)
    assert not rig.threads[0].is_alive()


def test_pictures_come_no_faster_than_configured(rig: Rig) -> None:
    rig.pictures.fps = 20
    rig.configured()
    rig.watch()
    rig.attached()
    began = time.monotonic()
    for _ in range(60):
        rig.frame()
        time.sleep(0.005)
    took = time.monotonic() - began
    assert 2 <= len(rig.shown) <= took * 20 + 2


def test_a_frame_is_shown_with_its_own_result_and_not_before(rig: Rig) -> None:
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    rig.found(rig.frame())  # results come: from now on frames wait for them
    rig.quiet()
    frames = [rig.frame() for _ in range(3)]
    of_a_crop = {"camera": "door", "frame_id": frames[2][0], "captured_at": frames[2][1], "pipeline": "p"}
    rig.found(frames[2], "chain", source=of_a_crop)  # whose boxes lie elsewhere
    time.sleep(0.2)
    assert not rig.shown
    rig.found(frames[1])
    picture = rig.picture(frames[1][0])
    (told,) = json.loads(picture.results)
    assert told["pipeline"] == "p"
    assert told["result"]["results"] == [FACE]
    assert told["result"]["source"]["frame_id"] == frames[1][0]
    rig.found(frames[0])  # too late: a newer one was shown
    rig.found(frames[2])
    rig.picture(frames[2][0])
    assert [each.frame_id for each in rig.shown] == [frames[1][0], frames[2][0]]


def test_a_pipeline_that_says_nothing_any_more_hides_no_picture(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.results.COME_S", 0.3)
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    rig.found(rig.frame())
    rig.quiet()
    rig.attached()


def test_ids_that_begin_anew_get_no_results_of_former_frames(rig: Rig) -> None:
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    former = [rig.frame() for _ in range(5)]
    for frame in former:
        rig.found(frame)
    rig.quiet()
    rig.writer.close()
    rig.writer = rig.wrote()
    frame_id = 0
    while frame_id <= former[-1][0]:  # the ids of former frames, all of which have results
        frame_id, at = rig.frame()
        time.sleep(0.02)
    assert not rig.shown
    rig.found((frame_id, at))
    assert rig.picture(frame_id).captured_at == at


def test_frames_that_wait_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "HELD_BYTES", 5 * 960 * 540 * 3)
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch()
    rig.attached()
    rig.found(rig.frame())
    rig.quiet()
    frames = []
    for _ in range(10):
        frames.append(rig.frame())
        time.sleep(0.03)
    rig.found(frames[0])
    time.sleep(0.1)
    assert not rig.shown
    rig.found(frames[-1])
    rig.picture(frames[-1][0])


def test_boxes_are_burnt_in_for_who_wants_that(rig: Rig) -> None:
    rig.configured(p={"source": {"camera": "door"}})
    rig.watch(burnt=True)
    rig.attached()
    rig.found(rig.frame())
    rig.quiet()
    frame = rig.frame()
    time.sleep(0.1)
    rig.found(
        frame, results=[FACE, {"box": ["x"] * 4}, {"box": [1e300] * 4}, 5, {"label": "<b>é", "box": [1, 2, 3, 4]}]
    )
    picture = rig.picture(frame[0])
    image = cv2.imdecode(np.frombuffer(picture.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    left = image[200:280, 299:302].reshape(-1, 3).astype(int)  # x = 400 * 960 / 1280
    assert left.std(axis=0).max() < 60  # one colour beside noise of 74


def test_a_file_in_the_place_of_a_ring_is_a_problem_while_somebody_watches(rig: Rig) -> None:
    rig.configured()
    (rig.folder / "edgeml-odd").write_bytes(b"x" * 10_000)
    unwatch = rig.pictures.watch("odd", 960, rig.shown.append)
    eventually(lambda: [item.code for item in rig.health.problems.current()] == ["unreadable"], 10, "the problem")
    assert unwatch is not None
    unwatch()
    eventually(lambda: not rig.health.problems.current(), 10, "its end")


def test_watched_cameras_are_bounded_and_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_WATCHED", 2)
    watched = [rig.pictures.watch(name, 960, rig.shown.append) for name in ("a", "b", "c", "../x", "")]
    assert [each is not None for each in watched] == [True, True, False, False, False]


def test_who_changes_his_mind_all_the_time_starts_no_crowd(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_THREADS", 4)
    crowd = 0
    for number in range(300):
        unwatch = rig.pictures.watch(f"n{number}", 960, rig.shown.append)
        if unwatch is not None:
            unwatch()
        crowd = max(crowd, sum(thread.is_alive() for thread in rig.threads))
    assert crowd <= 8  # of which some are ending
    assert eventually(lambda: rig.pictures.watch("door", 960, rig.shown.append), 10, "room again")
