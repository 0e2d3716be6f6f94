"""The main path: a face in front of a camera reaches S3 and MQTT, by components started from built artifacts."""

import json
import queue
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from bundles.clips import face_clip
from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.mqtt_end import let_go
from support import eventually

BUCKET = "faces-bucket"


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_face_reaches_s3_and_mqtt(profile: str, start: Start, cloud: LocalCloud, tmp_path: Path) -> None:
    s3 = cloud.aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    messages: queue.Queue[dict[str, Any]] = queue.Queue()
    listener = mqtt.Client(CallbackAPIVersion.VERSION2)
    listener.on_message = lambda client, data, message: messages.put(json.loads(message.payload))
    listener.connect(*cloud.mqtt_address)
    listener.subscribe("ModelInference", qos=1)
    listener.loop_start()
    rings = tmp_path / "rings"
    rings.mkdir()
    camera = {"type": "file", "location": str(face_clip()), "fps": 10, "width": 528, "height": 432}
    pipeline = {
        "source": {"type": "camera", "camera": "front"},
        "backend": {"type": "onnx", "model": "FaceDetector"},
        "iot_core": {"enabled": True},
        "crops": {"bucket": BUCKET},
    }
    try:
        with start(
            {
                "face_detector": {},
                "camera_capture": {"ring_directory": str(rings), "cameras": {"front": camera}},
                "inferencer": {"ring_directory": str(rings), "pipelines": {"faces": pipeline}},
            },
            profile=profile,
        ) as core:
            result = messages.get(timeout=20)
            assert core.state("edgeml.model.FaceDetector") == "FINISHED"
            keys = eventually(
                lambda: [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])], 10, "crops in S3"
            )
        assert result["pipeline"] == "faces"
        assert (result["model"]["name"], result["model"]["version"]) == ("FaceDetector", "1.1.1")
        (face,) = result["results"]
        assert face["label"] == "face"
        assert face["score"] > 0.5
        assert len(face["landmarks"]) == 5
        assert keys[0].startswith("faces/laptop/20")
        assert s3.get_object(Bucket=BUCKET, Key=keys[0])["Body"].read(2) == b"\xff\xd8"
        assert list(rings.iterdir()) == []
    finally:
        let_go(listener)
        for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            s3.delete_object(Bucket=BUCKET, Key=item["Key"])
        s3.delete_bucket(Bucket=BUCKET)
