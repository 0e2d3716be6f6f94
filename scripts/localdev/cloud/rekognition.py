"""A stand-in for Rekognition's DetectFaces that really looks at the image.

It answers only what it computes: box, confidence, five landmarks and emotions. CONFUSED is always 0: the model does
not know it. Every answer carries the header `x-stand-in`. Sizes and errors are those of Rekognition's documentation.
"""

import hashlib
import json
import threading
from base64 import b64decode
from collections import OrderedDict
from typing import Any

import cv2
import numpy as np

from localdev.cloud.aws import LocalAws, Request, Response
from localdev.cloud.faces import Face, Faces
from localdev.workspace import bundle

HEADERS = {"Content-Type": "application/x-amz-json-1.1", "x-stand-in": "CenterFace and mini-XCEPTION, not Rekognition"}
MAX_BYTES = 5 * 1024 * 1024
MAX_S3_BYTES = 15 * 1024 * 1024
MIN_SIDE = 80  # pixels
REMEMBERED = 256  # answers, by image
LANDMARKS = ("eyeLeft", "eyeRight", "nose", "mouthLeft", "mouthRight")


class Refused(Exception):  # noqa: N818  (becomes one of Rekognition's exceptions)
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rekognition:
    """A stand-in for LocalAws."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._faces: Faces | None = None
        self._lock = threading.Lock()
        self._answers: OrderedDict[str, bytes] = OrderedDict()

    def __call__(self, request: Request) -> Response | None:
        if request.service != "rekognition" or request.operation != "DetectFaces":
            return None
        try:
            return Response(self._detect(json.loads(request.body)["Image"]), headers=HEADERS)
        except Refused as error:
            body = {"__type": error.code, "message": str(error)}
            return Response(json.dumps(body).encode(), 400, HEADERS)

    def _detect(self, image: dict[str, Any]) -> bytes:
        data = self._read(image)
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            answer = self._answers.get(digest) or self._look(data)
            self._answers[digest] = answer
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer

    def _read(self, image: dict[str, Any]) -> bytes:
        limit, data = MAX_BYTES, b64decode(image.get("Bytes", ""))
        if "S3Object" in image:
            limit, where = MAX_S3_BYTES, image["S3Object"]
            s3 = self._aws.client("s3")
            try:
                data = s3.get_object(Bucket=where["Bucket"], Key=where["Name"])["Body"].read()
            except (s3.exceptions.NoSuchKey, s3.exceptions.NoSuchBucket) as error:
                text = "Unable to get object metadata from S3. Check object key, region and/or access permissions."
                raise Refused("InvalidS3ObjectException", text) from error
        if len(data) > limit:
            raise Refused("ImageTooLargeException", f"image has {len(data)} bytes")
        return data

    def _look(self, data: bytes) -> bytes:
        pixels = None
        if data.startswith((b"\xff\xd8", b"\x89PNG")):
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise Refused("InvalidImageFormatException", "Request has invalid image format")
        height, width = pixels.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise Refused("InvalidParameterException", f"image is smaller than {MIN_SIDE} pixels")
        if self._faces is None:
            self._faces = Faces(bundle("face_detector"), bundle("emotion"))
        details = [detail(face, width, height) for face in self._faces.find(pixels)]
        return json.dumps({"FaceDetails": details, "OrientationCorrection": "ROTATE_0"}).encode()


def detail(face: Face, width: int, height: int) -> dict[str, Any]:
    x, y, w, h = face.box
    emotions = {name: probability * 100 for name, probability in face.emotions.items()} | {"CONFUSED": 0.0}
    return {
        "BoundingBox": {"Left": x / width, "Top": y / height, "Width": w / width, "Height": h / height},
        "Confidence": face.score * 100,
        "Landmarks": [
            {"Type": name, "X": px / width, "Y": py / height}
            for name, (px, py) in zip(LANDMARKS, face.landmarks, strict=True)
        ],
        "Emotions": [
            {"Type": name, "Confidence": percent} for name, percent in sorted(emotions.items(), key=lambda e: -e[1])
        ],
    }
