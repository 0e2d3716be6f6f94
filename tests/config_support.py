"""The real Config of every component, walked: each field at each level, with a configuration that reaches it."""

import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from support import ROOT

COMPONENTS = sorted(
    path.parent.name for path in (ROOT / "components").glob("*/config.py") if path.parent.name != "edgeml"
)
_TEXTS = ("a", "/a", "http://a/", "https://a/", "1234:abcd", "aaa")

Build = Callable[[Any], dict[str, Any]]


def unwrapped(info: Any) -> Any:
    """A type without the descriptions around it."""
    while isinstance(info, inspect.Metadata):
        info = info.type
    return info


def config_of(component: str) -> type[msgspec.Struct]:
    kind: type[msgspec.Struct] = importlib.import_module(f"{component}.config").Config
    return kind


@dataclass(frozen=True)
class Place:
    """A value in a configuration: `build(value)` is the smallest valid configuration that holds it at `path`."""

    component: str
    path: str
    info: Any
    build: Build

    @property
    def id(self) -> str:
        return f"{self.component}.{self.path}"


def places() -> Iterator[Place]:
    """Every value of every component: structs, and the scalars in them."""
    for component in COMPONENTS:
        yield from _below(component, "", inspect.type_info(config_of(component)), lambda value: value)


def _below(component: str, path: str, info: Any, build: Build) -> Iterator[Place]:
    info = unwrapped(info)
    yield Place(component, path, info, build)
    if isinstance(info, inspect.UnionType):
        for kind in map(unwrapped, info.types):
            if isinstance(kind, inspect.StructType):
                yield from _below(component, f"{path}<{kind.tag}>", kind, build)
    elif isinstance(info, inspect.DictType):
        yield from _below(component, f"{path}.x", info.value_type, lambda value: build({"x": value}))
    elif isinstance(info, inspect.CollectionType):
        yield from _below(component, f"{path}.0", info.item_type, lambda value: build([value, *example(info)[1:]]))
    elif isinstance(info, inspect.StructType):
        for field in info.fields:
            at = f"{path}.{field.encode_name}".removeprefix(".")
            yield from _below(component, at, field.type, _holding(build, info, field.encode_name))


def _holding(build: Build, struct: inspect.StructType, name: str) -> Build:
    return lambda value: build({**example(struct), name: value})


def example(info: Any) -> Any:
    """A valid value: of a struct no more than what it requires."""
    info = unwrapped(info)
    if isinstance(info, inspect.UnionType):
        return example(info.types[0])
    if isinstance(info, inspect.StructType):
        tag = {} if info.tag_field is None else {info.tag_field: info.tag}
        return {**tag, **{field.encode_name: example(field.type) for field in info.fields if field.required}}
    if isinstance(info, inspect.StrType):
        fitting = (text for text in _TEXTS if re.search(info.pattern or "", text))
        return next(text for text in fitting if len(text) >= (info.min_length or 0))
    if isinstance(info, inspect.LiteralType):
        return info.values[0]
    if isinstance(info, inspect.IntType):
        return info.ge if info.ge is not None else 1
    if isinstance(info, inspect.FloatType):
        return info.le if info.le is not None else 1.0
    if isinstance(info, inspect.BoolType):
        return True
    if isinstance(info, inspect.TupleType):
        return [example(item) for item in info.item_types]
    if isinstance(info, inspect.CollectionType):
        return [example(info.item_type)] * (info.min_length or 0)
    return {}
