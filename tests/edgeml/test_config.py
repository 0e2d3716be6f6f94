import math
import re
from typing import Annotated, Any, Literal

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
    named: dict[Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], int] = {}
    either: dict[str, OneKind | None] = {}


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
        ({"cameras": {"a": {"fps": "31_0"}}}, "cameras.a.fps", ["float", '"31_0"']),
        ({"cameras": {"a": {"sizes": [1, 1.5]}}}, "cameras.a.sizes.1", ["int", "1.5"]),
        ({"cameras": {"a": {"sizes": [None]}}}, "cameras.a.sizes.0", ["int", "null"]),
        ({"cameras": {"b\ud800": {}}}, "cameras", ["half a surrogate pair"]),
        ({"named": {"a b": 1}}, "named.a b", ["matching", '"a b"']),
        ({"named": {"ab": "x"}}, "named.ab", ["int", '"x"']),
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
        ("camera", "camera is not known, did you mean cameras?"),
        ("cameras.a.fsp", "cameras.a.fsp is not known, did you mean fps?"),
        ("kinds.k.heigth", "kinds.k.heigth is not known, did you mean height?"),
    ]


@pytest.mark.parametrize("key", ["CAMERAS", "came_ras", "Camera", "cameras "])
def test_the_nearest_key_is_found_whatever_its_case(key: str) -> None:
    ((_, sentence),) = config.unknown_keys(Config, {key: {}})
    assert sentence.endswith("did you mean cameras?")


def test_an_unknown_key_that_cannot_be_written_down_is_told_all_the_same() -> None:
    ((path, _),) = config.unknown_keys(Config, {"x\ud800": 1})
    path.encode()


def test_null_removes_an_entry_and_gives_a_field_its_default() -> None:
    raw = {"cameras": {"a": None, "b": {"fps": None}}, "name": None, "either": {"c": None}, "kinds": None}
    assert config.load(Config, raw) == Config(cameras={"b": Camera()}, either={"c": None})


def test_what_nests_without_end_is_refused() -> None:
    raw: dict[str, Any] = {}
    for _ in range(5000):
        raw = {"x": raw}
    with pytest.raises(ConfigError, match="at most 64 levels"):
        config.load(Config, raw)
    assert config.unknown_keys(Config, raw) == [("x", "x is not known")]


@pytest.mark.parametrize(
    ("kind", "raw", "words"),
    [
        (Literal["a", "b"], "A", "value: invalid enum value 'A', expected a or b, found \"A\""),
        (Literal[1, 3, 5, 7], 2.0, "value: invalid enum value 2, expected one of 1, 3, 5, 7, found 2.0"),
        (Literal["auto"] | list[str], "non", "expected auto or a list, found"),
        (list[Literal["a", "b"]], ["a", "c"], "value.1: invalid enum value 'c', expected a or b, found"),
        (
            dict[str, Literal["a", "b"] | None],
            {"x.y": "c"},
            "value.x.y: invalid enum value 'c', expected a or b, found",
        ),
        (OneKind | OtherKind, {"type": "cow"}, "value.type: invalid value 'cow', expected one or other, found"),
        (Literal["a", "b"], "x" * 70_000, "expected a or b, found"),
        (dict[str, int], {"x" * 70_000: "y"}, "expected int, found"),
        (float, math.inf, "found inf"),
        (int, -math.inf, "found -inf"),
    ],
)
def test_a_refusal_says_what_is_allowed_in_one_short_line(kind: Any, raw: Any, words: str) -> None:
    made = msgspec.defstruct("Made", [("value", kind)])
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        config.load(made, {"value": raw})
    assert len(str(caught.value)) < 400


def test_on_and_off_without_quotes_are_words() -> None:
    made = msgspec.defstruct("Made", [("value", Literal["auto", "on", "off"])])
    loaded = [config.load(made, {"value": value}) for value in (True, False, "auto")]
    assert loaded == [made(value) for value in ("on", "off", "auto")]
