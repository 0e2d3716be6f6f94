"""Requests over the local core: the sample requester's picture, a topic that is not allowed, a core that is gone."""

from pathlib import Path

import pytest

from integration.conftest import Start
from support import eventually


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_the_sample_picture_is_a_cup_of_espresso(profile: str, start: Start, tmp_path: Path) -> None:
    allowed = tmp_path / "gg" / "work" / "edgeml.SampleRequester" / "pictures"
    pipelines = {
        "pictures": {
            "source": {"type": "request", "allowed_dirs": [str(allowed)]},
            "backend": {"type": "onnx", "model": "ImageClassifier"},
        },
        "forbidden": {
            "source": {"type": "topic", "topic": "somebody/elses"},
            "backend": {"type": "onnx", "model": "ImageClassifier"},
        },
    }
    components = {
        "image_classifier": {},
        "inferencer": {"pipelines": pipelines},
        "sample_requester": {"interval_s": 0.5},
    }
    with start(components, profile=profile) as core:
        eventually(lambda: "label=espresso" in core.log("edgeml.SampleRequester"), 20, "an answer")
        # The pipeline whose topic the recipe does not allow says so; the other one works.
        said = "pipeline not started pipeline=forbidden"
        eventually(lambda: said in core.log("edgeml.Inferencer"), 5, "the refusal")
        assert "somebody/elses" in core.log("edgeml.Inferencer")


def test_a_connection_that_is_lost_ends_the_process_and_a_new_one_starts(start: Start) -> None:
    with start({"inferencer": {"pipelines": {}}}) as core:
        eventually(lambda: "started component=edgeml.Inferencer" in core.log("edgeml.Inferencer"), 15, "the start")
        before = core.pid("edgeml.Inferencer")
        core.cut_connections()
        eventually(lambda: core.pid("edgeml.Inferencer") not in (before, None), 15, "another process")
        assert "closed the IPC connection" in core.log("edgeml.Inferencer")
