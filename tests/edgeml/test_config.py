from typing import Annotated, Any

import msgspec
import pytest

from edgeml import config
from edgeml.errors import ConfigError


class Camera(msgspec.Struct):
    fps: Annotated[float, msgspec.Meta(gt=0, le=240)] = 10.0
    enabled: bool = True
    sizes: list[int] = []


class OneKind(msgspec.Struct, tag="one", tag_field="type"):
    width: int = 1


class OtherKind(msgspec.Struct, tag="other", tag_field="type"):
    height: int = 1


class Config(msgspec.Struct):
    cameras: dict[str, Camera] = {}
    kinds: dict[str, OneKind | OtherKind] = {}
    name: str = ""


def test_scalars_may_be_strings() -> None:
    loaded = config.load(Config, {"cameras": {"door": {"fps": "12.5", "enabled": "false", "sizes": ["1", 2.0]}}})
    assert loaded.cameras["door"] == Camera(fps=12.5, enabled=False, sizes=[1, 2])


def test_access_control_is_the_cores_business() -> None:
    raw = {"accessControl": {"aws.greengrass.ipc.pubsub": {}}, "name": "x"}
    assert config.load(Config, raw).name == "x"
    assert config.unknown_keys(Config, raw) == []


@pytest.mark.parametrize(
    ("raw", "path", "words"),
    [
        ({"cameras": {"a": {}, "b": {"fps": "fast"}}}, "cameras.b.fps", ["float", '"fast"']),
        ({"cameras": {"a": {"fps": 500}, "b": {}}}, "cameras.a.fps", ["<= 240", "500"]),
        ({"cameras": {"a": {"sizes": [1, "x"]}}}, "cameras.a.sizes.1", ["int", '"x"']),
        ({"cameras": "front"}, "cameras", ["object", '"front"']),
        ({"kinds": {"k": {"type": "third"}}}, "kinds.k.type", ["third"]),
        ({"name": 5}, "name", ["str", "5"]),
    ],
)
def test_an_error_names_path_found_and_allowed(raw: dict[str, Any], path: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(Config, raw)
    assert caught.value.path == path
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_unknown_keys_are_told_with_a_guess() -> None:
    raw = {
        "camera": {},
        "cameras": {"a": {"fsp": 1}},
        "kinds": {"k": {"type": "other", "heigth": 2}, "m": {"type": "one", "width": 3}},
    }
    assert config.unknown_keys(Config, raw) == [
        "camera is not known, did you mean cameras?",
        "cameras.a.fsp is not known, did you mean fps?",
        "kinds.k.heigth is not known, did you mean height?",
    ]
