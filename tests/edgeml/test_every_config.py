"""The same promises for every field of every component, as Greengrass and its tools change values on their way."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from msgspec import inspect

from config_support import COMPONENTS, Place, config_of, example, places, unwrapped
from edgeml import config
from edgeml.errors import ConfigError

PLACES = list(places())
STRUCTS = [place for place in PLACES if isinstance(place.info, inspect.StructType)]
NO_NUMBERS = ["1_000", "１２", "١٢", "²", " 1", "1 ", "1\n", "0x1", "1,0", "nan", "inf", "one"]


def kinds(place: Place) -> list[Any]:
    return [unwrapped(kind) for kind in getattr(place.info, "types", [place.info])]


def integers(place: Place) -> list[int]:
    """Integers that may stand at `place`."""
    found = [
        choice
        for kind in kinds(place)
        if isinstance(kind, inspect.LiteralType)
        for choice in kind.values
        if type(choice) is int
    ]
    return found + [example(kind) for kind in kinds(place) if isinstance(kind, inspect.IntType)]


def takes(place: Place, kind: type) -> bool:
    return any(isinstance(each, kind) for each in kinds(place))


INTEGERS = [place for place in PLACES if integers(place)]
FLOATS = [place for place in PLACES if takes(place, inspect.FloatType)]


def loaded(place: Place, value: Any) -> Any:
    return config.load(config_of(place.component), place.build(value))


@contextmanager
def told(place: Place) -> Iterator[None]:
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        raise AssertionError(f"{place.id}: {error}") from error


def at_each(found: list[Place]) -> Callable[[Callable[[Place], None]], Callable[[str], None]]:
    """A test for each component, not for each of a thousand places: it tells the first at which `check` fails."""

    def tested(check: Callable[[Place], None]) -> Callable[[str], None]:
        def test(component: str) -> None:
            for place in found:
                if place.component == component:
                    with told(place):
                        check(place)

        here = [component for component in COMPONENTS if any(place.component == component for place in found)]
        made: Callable[[str], None] = pytest.mark.parametrize("component", here)(test)
        return made

    return tested


def test_the_walk_reaches_every_component_and_depth() -> None:
    paths = {place.id for place in INTEGERS}
    assert {"log_shipper.retentionDays", "inferencer.pipelines.x.backend<sagemaker>.breaker.failures"} <= paths
    assert {"camera_capture.cameras.x<device>.location", "camera_capture.cameras.x<http>.snapshots.keep"} <= paths
    assert len({place.component for place in INTEGERS}) >= 7


@at_each(INTEGERS)
def test_integers_come_as_doubles_and_as_text(place: Place) -> None:
    for value in integers(place):
        plain = loaded(place, value)
        assert loaded(place, float(value)) == plain
        assert msgspec.to_builtins(loaded(place, float(value))) == msgspec.to_builtins(plain)
        if not takes(place, inspect.StrType):
            assert loaded(place, str(value)) == loaded(place, f"{value}.0") == plain
    for wrong in (0.5, math.nan, math.inf, True, 1e300):
        with pytest.raises(ConfigError, match=r"expected|invalid|out of range"):
            loaded(place, wrong)


@at_each(FLOATS)
def test_numbers_are_finite(place: Place) -> None:
    for wrong in (math.nan, math.inf, -math.inf, 10**400):
        with pytest.raises(ConfigError, match=r"expected|out of range"):
            loaded(place, wrong)


@at_each([p for p in INTEGERS + FLOATS if not takes(p, inspect.StrType)])
def test_what_only_python_takes_for_a_number_is_refused(place: Place) -> None:
    for text in NO_NUMBERS:
        with pytest.raises(ConfigError, match=r"expected|invalid") as caught:
            loaded(place, text)
        assert "found" in str(caught.value)


@at_each(STRUCTS)
def test_one_misspelt_key_at_each_level_is_named_and_no_error(place: Place) -> None:
    for field in place.info.fields:
        key = field.encode_name
        wrong = key[:-2] + key[-1] + key[-2] if len(set(key[-2:])) > 1 else f"{key}x"
        raw = place.build({**example(place.info), wrong: 1})
        config.load(config_of(place.component), raw)
        ((path, sentence),) = config.unknown_keys(config_of(place.component), raw)
        assert path.rpartition(".")[2] == wrong
        assert sentence == f"{path} is not known, did you mean {key}?"


@at_each(STRUCTS)
def test_the_smallest_configuration_has_no_unknown_keys(place: Place) -> None:
    assert config.unknown_keys(config_of(place.component), place.build(example(place.info))) == []


@at_each([p for p in PLACES if p.path])
def test_null_is_as_if_it_were_not_there(place: Place) -> None:
    """Of required fields that is an error; in lists null stays what it is, and is refused."""
    if place.path.endswith(".0"):
        return
    required = False
    try:
        without = loaded(place, None)
    except ConfigError as error:
        required = "missing required field" in str(error)
        assert required, str(error)
    if not required and place.path.endswith(".x"):
        assert "'x': None" not in repr(without) or takes(place, inspect.NoneType)


@at_each([p for p in PLACES if takes(p, inspect.StrType)])
def test_half_a_surrogate_pair_is_refused_in_words(place: Place) -> None:
    with pytest.raises(ConfigError, match="half a surrogate pair"):
        loaded(place, "a\ud800")


def edges(info: Any) -> Iterator[tuple[Any, Any]]:
    """What is just allowed, and what is just beyond, at each limit of a type."""
    if isinstance(info, inspect.IntType):
        yield from ((limit, limit - 1) for limit in [info.ge] if limit is not None)
        yield from ((limit, limit + 1) for limit in [info.le] if limit is not None)
    elif isinstance(info, inspect.FloatType):
        for limit, beyond in ((info.ge, -math.inf), (info.le, math.inf)):
            if limit is not None:
                yield float(limit), math.nextafter(limit, beyond)
        for limit, within in ((info.gt, math.inf), (info.lt, -math.inf)):
            if limit is not None:
                yield math.nextafter(limit, within), float(limit)
    elif isinstance(info, inspect.StrType):
        if (most := info.max_length) is not None:
            yield example(info).ljust(most, "a"), example(info).ljust(most + 1, "a")
        if least := info.min_length:
            yield example(info)[:least], example(info)[: least - 1]
    elif isinstance(info, inspect.CollectionType):
        item = example(info.item_type)
        yield from (([item] * most, [item] * (most + 1)) for most in [info.max_length] if most is not None)
        yield from (([item] * least, [item] * (least - 1)) for least in [info.min_length] if least)


def limits(place: Place) -> list[tuple[Any, Any]]:
    return [edge for kind in kinds(place) for edge in edges(kind)]


LIMITED = [place for place in PLACES if limits(place)]


def test_the_walk_finds_limits_of_every_kind() -> None:
    allowed = {type(edge) for place in LIMITED for edge, _ in limits(place)}
    assert {int, float, str, list} <= allowed
    assert len(LIMITED) > 100


@at_each(LIMITED)
def test_a_limit_is_allowed_and_what_is_just_beyond_is_named(place: Place) -> None:
    for allowed, beyond in limits(place):
        loaded(place, allowed)
        with pytest.raises(ConfigError, match=r"expected|invalid") as caught:
            loaded(place, beyond)
        assert caught.value.path == re.sub("<[^>]*>", "", place.path)
