"""The same camera seen by a pipeline with privacy: its crops hold no face that anybody finds."""

from pathlib import Path
from typing import Any

from bundles.clips import face_clip
from localdev.demo.stage import Configuration, Evidence, Stage
from localdev.demo.stages.faces import contact_sheet

METHODS = ("blur", "pixelate", "box")
PER_S = 2
LOOKED_AT = 6  # crops of each method, and as many with nothing hidden


class PrivacyBlur(Stage):
    name = "privacy_blur"
    title = "crops in which nobody can be recognised"
    needs = ("s3_crops",)

    def prepare(self) -> None:
        self._bucket = self.world.outputs["DataBucketName"]
        self._results = 0
        self._crops: dict[str, int] = {}
        self._faces: dict[str, int] = {}
        self._sheet: Path | None = None

    def configuration(self) -> Configuration:
        pipelines = {
            f"private_{method}": {
                "source": {"type": "camera", "camera": f"private_{method}"},
                "backend": {"type": "onnx", "model": "FaceDetector", "max_side": 640},
                "privacy": {"labels": ["face"], "method": method},
                "crops": {"bucket": self._bucket, "prefix": f"private/{method}", "every": PER_S, "margin": 0.8},
            }
            for method in METHODS
        }
        # Cameras of their own: a page shows of a camera only what all its pipelines with privacy have hidden.
        camera = {"type": "file", "location": str(face_clip()), "fps": PER_S, "width": 352, "height": 288}
        cameras = {f"private_{method}": camera for method in METHODS}
        return {"camera_capture": {"cameras": cameras}, "inferencer": {"pipelines": pipelines}}

    def begin(self) -> None:
        for method in METHODS:
            self.world.hear(f"edgeml/inference/private_{method}", self._result)

    def _result(self, topic: str, payload: bytes) -> None:
        self._results += 1

    def progress(self) -> str:
        return f"{self._results} results"

    def finish(self) -> None:
        """Ask the stand-in for Rekognition, which finds a face in each crop of the pipeline without privacy."""
        client = self.world.cloud.aws.client("s3")
        rekognition = self.world.cloud.aws.client("rekognition")
        shown: list[tuple[str, bytes]] = []
        for way, prefix in {"none": "faces/", **{method: f"private/{method}/" for method in METHODS}}.items():
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
            chosen = keys[:: max(1, len(keys) // LOOKED_AT)][:LOOKED_AT]
            crops = [client.get_object(Bucket=self._bucket, Key=key)["Body"].read() for key in chosen]
            answers = [rekognition.detect_faces(Image={"Bytes": data}) for data in crops]
            self._crops[way] = len(chosen)
            self._faces[way] = sum(bool(answer["FaceDetails"]) for answer in answers)
            shown += list(zip(chosen, crops, strict=True))[:3]
        if shown:
            self._sheet = self.world.output / "privacy.png"
            contact_sheet([data for _, data in shown], [key for key, _ in shown], self._sheet)

    def evidence(self) -> Evidence:
        figures: dict[str, Any] = {"crops": self._crops, "with_a_face": self._faces, "contact_sheet": str(self._sheet)}
        hidden = all(self._crops.get(method) and not self._faces[method] for method in METHODS)
        ok = hidden and self._faces.get("none", 0) == self._crops.get("none") != 0
        return Evidence(ok, figures, "expected a face in each crop without privacy, and in none with it")
