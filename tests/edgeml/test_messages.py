import msgspec
import pytest

from edgeml import messages
from edgeml.messages import CameraCommand, Detection, FrameReady, InferenceResult, LatencyMs, ModelRef, SampleRef


def test_a_message_survives_the_trip() -> None:
    frame = FrameReady(camera="a", frame_id=2**53, width=1, height=2, pixel_format="bgr24", captured_at=1.5)
    assert messages.decode(messages.encode(frame), FrameReady) == frame


def test_integers_that_came_back_as_floats_and_new_fields_are_accepted() -> None:
    payload = b'{"camera":"a","frame_id":5.0,"width":"1","height":2,"pixel_format":"gray8","captured_at":1,"new":[]}'
    assert messages.decode(payload, FrameReady).frame_id == 5


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="explode"):
        messages.decode(b'{"command":"explode"}', CameraCommand)


def test_absent_optional_fields_are_left_out() -> None:
    result = InferenceResult(
        pipeline="p",
        model=ModelRef("m", "1"),
        source=SampleRef(camera="c", frame_id=1),
        task="detection",
        results=[Detection("face", 0.9, (1.0, 2.0, 3.0, 4.0))],
        latency_ms=LatencyMs(queue=0, preprocess=0, inference=0, postprocess=0),
        device="thing",
    )
    decoded = msgspec.json.decode(messages.encode(result))
    assert decoded["results"] == [{"label": "face", "score": 0.9, "box": [1.0, 2.0, 3.0, 4.0]}]
    assert not {"error", "backend", "request_id", "truncated"} & decoded.keys()
    assert decoded["source"] == {"camera": "c", "frame_id": 1}


def test_nesting_without_end_is_a_message_that_cannot_be_read() -> None:
    for payload in (b'{"x":' + b"[" * 100_000, b"[" * 100_000):
        with pytest.raises(msgspec.MsgspecError):
            messages.decode(payload, messages.ModelActivate)
