"""A face in front of a camera: captured, detected, told to IoT Core, cropped to S3."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bundles.clips import face_clip
from localdev.demo.stage import Configuration, Evidence, Stage, Window

CAMERA = "clip"
FPS = 10
SLOTS = 64  # six seconds: enough for a detector that takes every frame, while a dozen others start on two cores
SHEET_TILES, TILE = 15, 160


class CameraCapture(Stage):
    name = "camera_capture"
    title = "frames of a video clip into shared memory"

    def configuration(self) -> Configuration:
        # The clip is tiny; twice its size a face is what a camera across a room would give.
        size = {"width": 352, "height": 288}
        camera = {"type": "file", "location": str(face_clip()), "fps": FPS, "slots": SLOTS, **size}
        return {"camera_capture": {"cameras": {CAMERA: camera}, "ring_directory": str(self.world.rings)}}

    def begin(self) -> None:
        self._frames = 0
        self._first_at = self._last_at = 0.0
        self.world.hear(f"edgeml/camera/{CAMERA}/frame", self._frame)

    def _frame(self, topic: str, payload: bytes) -> None:
        self._last_at = time.monotonic()
        self._first_at = self._first_at or self._last_at
        self._frames += 1

    def _rate(self) -> float:
        return (self._frames - 1) / (self._last_at - self._first_at) if self._frames > 1 else 0.0

    def progress(self) -> str:
        return f"{self._frames} frames, {self._rate():.1f}/s"

    def evidence(self) -> Evidence:
        figures = {"frames": self._frames, "frames_per_s": round(self._rate(), 1)}
        ok = self._frames >= FPS and self._rate() > FPS * 0.8
        return Evidence(ok, figures, f"expected about {FPS} frames/s")


class Inferencer(Stage):
    name = "inferencer"
    title = "an ONNX face detector on every frame"
    needs = ("camera_capture",)

    def configuration(self) -> Configuration:
        pipeline: dict[str, Any] = {
            "source": {"type": "camera", "camera": CAMERA, "policy": "every"},
            "backend": {"type": "onnx", "model": "FaceDetector", "max_side": 640},
            "iot_core": {"enabled": True, "every": 5},
            "crops": {"bucket": self.world.outputs["DataBucketName"], "every": FPS, "margin": 0.5},
        }
        inferencer = {"pipelines": {"faces": pipeline}, "ring_directory": str(self.world.rings)}
        return {"face_detector": {}, "inferencer": inferencer}

    def begin(self) -> None:
        self._faces = self._results = 0
        self._latency, self._inference = Window(), Window()
        self._model = ""
        self.world.hear("edgeml/inference/faces", self._result)

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        self._results += 1
        self._faces += len(result["results"])
        self._model = f"{result['model']['name']} {result['model']['version']}"
        self._latency.add(sum(result["latency_ms"].values()))
        self._inference.add(result["latency_ms"]["inference"])

    def progress(self) -> str:
        return f"{self._results} results, {self._faces} faces, p50 {self._latency.percentile(50):.1f} ms"

    def evidence(self) -> Evidence:
        figures = {
            "model": self._model,
            "results": self._results,
            "detections": self._faces,
            "latency_p50_ms": round(self._latency.percentile(50), 2),
            "latency_p99_ms": round(self._latency.percentile(99), 2),
            "inference_p50_ms": round(self._inference.percentile(50), 2),
        }
        return Evidence(self._faces > 0, figures, "no face was detected")


class IotCore(Stage):
    name = "iot_core"
    title = "ModelInference, heard by an MQTT client of its own"
    needs = ("inferencer",)

    def begin(self) -> None:
        self._heard = 0
        self.world.iot.hear("ModelInference", self._message)

    def _message(self, topic: str, payload: bytes) -> None:
        self._heard += json.loads(payload)["pipeline"] == "faces"

    def progress(self) -> str:
        return f"{self._heard} messages"

    def evidence(self) -> Evidence:
        return Evidence(self._heard > 0, {"messages": self._heard}, "no message on ModelInference")


class S3Crops(Stage):
    name = "s3_crops"
    title = "crops of the faces in S3"
    needs = ("inferencer",)

    def prepare(self) -> None:
        self._s3 = self.world.cloud.aws.client("s3")
        self._bucket = self.world.outputs["DataBucketName"]
        self._keys: list[str] = []
        self._sheet: Path | None = None
        self._looked = 0.0

    def tick(self) -> None:
        if time.monotonic() - self._looked > 1:
            self._looked = time.monotonic()
            self._look()

    def progress(self) -> str:
        return f"{len(self._keys)} crops"

    def _look(self) -> None:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix="faces/")
        self._keys = [item["Key"] for page in pages for item in page.get("Contents", [])]

    def finish(self) -> None:
        self._look()
        if self._keys:
            step = max(1, len(self._keys) // SHEET_TILES)
            crops = [self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read() for key in self._keys[::step]]
            self._sheet = self.world.output / "faces.png"
            contact_sheet(crops[:SHEET_TILES], self._keys[::step], self._sheet)

    def evidence(self) -> Evidence:
        figures: dict[str, Any] = {"crops": len(self._keys)}
        if self._sheet is not None:
            figures |= {"first": f"s3://{self._bucket}/{self._keys[0]}", "contact_sheet": str(self._sheet)}
        return Evidence(bool(self._keys), figures, f"nothing under s3://{self._bucket}/faces/")


def contact_sheet(crops: list[bytes], keys: list[str], path: Path) -> None:
    """A PNG of the crops, five to a row, each with its time and frame from the key."""
    tiles = []
    for data, key in zip(crops, keys, strict=False):
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        height, width = image.shape[:2]
        scale = (TILE - 8) / max(height, width)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        tile = np.full((TILE + 24, TILE, 3), 255, np.uint8)
        top, left = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
        tile[top : top + small.shape[0], left : left + small.shape[1]] = small
        moment, *_, frame, number = Path(key).stem.split("-")
        text = f"{moment[:2]}:{moment[2:4]}:{moment[4:6]} frame {frame} #{number}"
        cv2.putText(tile, text, (4, TILE + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.33, (60, 60, 60), 1, cv2.LINE_AA)
        tiles.append(tile)
    while len(tiles) % 5:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[start : start + 5]) for start in range(0, len(tiles), 5)]
    cv2.imwrite(str(path), np.vstack(rows))
