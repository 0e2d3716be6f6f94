"""Which crops of what one model found another one looks at, and which wait."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chains_support import FRAME, Chain, at
from edgeml.frames import FrameReader, FrameWriter
from edgeml.messages import Hidden, ModelRef, SampleRef
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources import detections
from inferencer.tracking.tracker import Tracker
from inferencer_support import picture, sample


def test_each_detection_is_looked_at_with_its_own_pixels(tmp_path: Path) -> None:
    chain = Chain(tmp_path, margin=0.25)
    chain.see(0.7, [at(20), at(200)])
    one, other = chain.taken()
    assert one.source == SampleRef(
        camera="c", frame_id=7, captured_at=1e9 + 0.7, pipeline="faces", index=0, track=1, region=(10, 85, 60, 90)
    )
    assert (other.source.index, other.source.track, other.pixel_format) == (1, 2, "rgb24")
    assert np.array_equal(one.image, FRAME[85:175, 10:70])
    assert not np.shares_memory(one.image, FRAME)
    assert one.arrived_ns == int(0.7e9)
    assert chain.taken() == []


def test_a_square_is_the_longer_side_and_ends_at_the_border(tmp_path: Path) -> None:
    chain = Chain(tmp_path, square=True)
    chain.see(0, [at(100), at(0)])
    assert [each.source.region for each in chain.taken()] == [(90, 100, 60, 60), (0, 100, 50, 60)]


def test_labels_and_scores_choose(tmp_path: Path) -> None:
    chain = Chain(tmp_path, labels=("face",), min_score=0.6)
    chain.see(0, [at(20), at(100, 0.5), at(200, label="hand"), at(900)])
    assert [each.source.index for each in chain.taken()] == [0]


TEN = [round(number / 10, 1) for number in range(50)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"per_track": "first"}, [(0.0, 1)]),
        ({"per_track": "interval", "per_track_s": 2.0}, [(0.0, 1), (2.0, 1), (4.0, 1)]),
        ({"per_track": "best", "per_track_s": 1.5}, [(1.5, 1)]),
    ],
    ids=["first", "interval", "best"],
)
def test_of_an_object_so_many_are_looked_at(tmp_path: Path, settings: Any, expected: list[Any]) -> None:
    assert Chain(tmp_path, **settings).go_on(TEN, [at(20)]) == expected


def test_the_best_of_the_first_seconds_is_looked_at_or_of_those_there_were(tmp_path: Path) -> None:
    chain = Chain(tmp_path, per_track="best", per_track_s=2.0)
    for now_s in TEN[:12]:
        chain.see(now_s, [at(20, 0.95 if now_s == 0.5 else 0.7)])
    assert chain.taken() == []
    for now_s in (1.5, 2.0, 2.5, 3.0):  # gone before the time was over
        chain.see(now_s, [])
    assert [each.source.frame_id for each in chain.taken()] == [5]
    for now_s in np.arange(4, 9, 0.1):
        chain.see(float(now_s), [at(200, 0.9 if now_s < 7 else 0.99)])
    (best,) = chain.taken()
    assert best.track is not None
    assert best.source.track == best.track.id == 2


def test_objects_that_never_ended_are_forgotten(tmp_path: Path) -> None:
    """The pipeline that follows them was changed, and follows others now."""
    chain = Chain(tmp_path, per_track="best", per_track_s=1000)
    chain.go_on(TEN, [at(20)])
    chain.tracker = Tracker(itertools.count(100).__next__)
    assert chain.go_on(np.arange(50, 60, 0.5), [at(200)]) == []
    ((_, track),) = chain.go_on(np.arange(60, 200, 0.5), [at(200)])
    assert track == 1


def test_without_tracks_there_is_no_first_of_an_object(tmp_path: Path) -> None:
    chain = Chain(tmp_path, per_track="first")
    outcome = Outcome("detection", ModelRef("m", "1"), [at(20)], Timer())
    chain.offers.put(sample(FRAME), outcome, None)  # type: ignore[arg-type]
    assert chain.taken() == []


def test_a_torn_crop_is_not_looked_at_and_the_next_one_is(tmp_path: Path) -> None:
    chain = Chain(tmp_path, per_track="first")
    chain.see(0, [at(20)], valid=lambda: False)
    assert chain.taken() == []
    chain.see(0.1, [at(20)])
    assert [each.source.frame_id for each in chain.taken()] == [1]
    assert chain.context.health.counter("pipelines.p.crops_lost") == 1


def test_what_waits_is_bounded_by_number_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(tmp_path, queue=3)
    for now_s in TEN[:10]:
        chain.see(now_s, [at(20)])
    assert [each.source.frame_id for each in chain.taken()] == [7, 8, 9]
    assert chain.context.health.counter("pipelines.p.crops_dropped") == 7
    monkeypatch.setattr(detections, "MAX_BYTES", 2 * 40 * 60 * 3)
    for now_s in TEN[10:20]:
        chain.see(now_s, [at(20)])
    assert len(chain.taken()) == 2
    best = Chain(tmp_path, per_track="best", per_track_s=100)
    assert len(best.go_on(TEN, [at(20), at(100), at(200), at(270)])) >= 2  # rather early than without a bound


def test_pixels_are_held_until_the_model_has_answered(tmp_path: Path) -> None:
    """The camera goes round its ring while the model works, as it does with large frames."""
    written = picture(red=200, size=(32, 32))
    with (
        FrameWriter("c", width=32, height=32, slots=2, directory=tmp_path) as writer,
        FrameReader("c", directory=tmp_path) as reader,
    ):
        writer.write(written)
        frame = reader.read(1.0, copy=False)
        assert frame is not None
        looked = Sample(frame.image, SampleRef(camera="c"), 0, "bgr24", valid=frame.valid)
        looked.hold()
        for _ in range(4):
            writer.write(written * 0)
        assert not frame.valid()
        assert looked.valid()
        assert np.array_equal(looked.image, written)
        torn = Sample(frame.image, SampleRef(camera="c"), 0, "bgr24", valid=frame.valid)
        torn.hold()
        assert not torn.valid()


def test_after_its_end_nothing_is_offered(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.samples.close()
    chain.see(0, [at(20)])
    assert chain.taken() == []


def test_what_a_picture_hides_its_crops_hide(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    hidden = Hidden("box", ((90, 90, 200, 60), (0, 0, 20, 20)))
    chain.see(0, [at(100), at(20)], hidden=hidden)
    one, other = chain.taken()
    assert one.hidden == Hidden("box", ((0, 0, 40, 50),))
    assert other.hidden == Hidden("box", ())
