"""The component as a process: what it asks, and what it says of the answers."""

from pathlib import Path

import cv2

from inferencer_support import picture
from support import Standalone

TOPIC, REPLY = "local/inference", "local/result"


def test_pictures_are_asked_for_in_turn_and_answers_logged(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG"):
        cv2.imwrite(str(tmp_path / name), picture())
    (tmp_path / "notes.txt").touch()
    config = {"image_dir": str(tmp_path), "interval_s": "0.1"}
    with Standalone("sample_requester", config, tmp_path / "work") as running:
        asked = [running.message(TOPIC, count=number) for number in (1, 2, 3)]
        assert [request["fname"] for request in asked] == ["a.JPG", "b.png", "a.JPG"]
        assert asked[0] == {"image_dir": str(tmp_path), "fname": "a.JPG", "request_id": "sample-1"}
        running.send(REPLY, {"label": "cat", "score": 0.7, "request_id": "sample-1"})
        running.logged("answer request_id=sample-1 label=cat score=0.7")
        running.send(REPLY, {"results": [{"label": "dog", "score": 0.5}], "request_id": "sample-2", "pipeline": "p"})
        running.logged("label=dog")
        running.send(REPLY, {"label": "", "error": "no such file"})
        running.logged('error="no such file"')
        running.send(REPLY, [1])
        running.logged("answer not understood")
        assert running.stop() == 0


def test_without_pictures_it_says_so_and_lives_on(tmp_path: Path) -> None:
    with Standalone("sample_requester", {"image_dir": str(tmp_path / "absent")}, tmp_path / "work") as running:
        running.logged("No such file or directory")
        cv2.imwrite(str(tmp_path / "a.png"), picture())
        running.config_file.write_text(f'{{"image_dir": "{tmp_path}"}}')
        assert running.message(TOPIC)["fname"] == "a.png"
        assert running.stop() == 0
