"""The file that --config names: configuration of components, in YAML or JSON.

edgeml.CameraCapture: {fps: 5}                          # what is to be merged
edgeml.Inferencer: {merge: {...}, reset: [/pipelines]}  # or both, as the API has it
"""

import math
from pathlib import Path
from typing import Any

import yaml

from deployment import UsageError
from deployment.configuration import Update, parts, resettable


def read(path: Path) -> dict[str, Update]:
    """Updates by component. Raises UsageError that says where in the file what was expected."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is neither YAML nor JSON: {error}") from error
    _require_mapping(content, str(path), "names of components")
    return {str(name): _update(wanted, f"{path}: {name}") for name, wanted in content.items()}


def _update(wanted: Any, where: str) -> Update:
    """`{"merge": {...}, "reset": [...]}`, or what is to be merged."""
    _require_mapping(wanted, where, "configuration")
    if not wanted.keys() & {"merge", "reset"}:
        wanted = {"merge": wanted}
    if others := [str(key) for key in wanted if key not in ("merge", "reset")]:
        raise UsageError(f"{where}: expected only merge and reset, or neither; found {', '.join(others)} beside them")
    merge, reset = wanted.get("merge", {}), wanted.get("reset", [])
    _require_mapping(merge, f"{where}: merge", "configuration")
    _require_json(merge, where)
    _require_no_null(merge, where, ())
    if not isinstance(reset, list):
        raise UsageError(f"{where}: reset: expected a list of JSON pointers, found {_kind(reset)}")
    for pointer in reset:
        _require_pointer(pointer, f"{where}: reset")
    return Update(merge, tuple(reset))


def _require_mapping(value: Any, where: str, of: str) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected a mapping with {of}, found {_kind(value)}")


def _require_json(value: Any, where: str) -> None:
    """YAML has more than JSON: dates, keys that are no strings (`on` is true), .nan and .inf."""
    if isinstance(value, dict):
        for key, below in value.items():
            if not isinstance(key, str):
                raise UsageError(f"{where}: the key {key!r} is {_kind(key)}, expected a string: quote it")
            _require_json(below, f"{where}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            _require_json(below, f"{where}[{index}]")
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise UsageError(f"{where}: {value} is {_kind(value)}, which JSON has not: quote it")


def _require_no_null(merge: dict[str, Any], where: str, path: tuple[str, ...]) -> None:
    """Merging null over a map can leave a Java nucleus that does not start again, and a key of Lite null for good."""
    for key, below in merge.items():
        here = (*path, key)
        if below is None:
            pointer = resettable(here)
            raise UsageError(
                f'{where}.{".".join(here)}: null removes nothing safely: use "reset": ["{pointer}"] instead'
            )
        if isinstance(below, dict):
            _require_no_null(below, where, here)


def _require_pointer(pointer: Any, where: str) -> None:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise UsageError(f'{where}: expected JSON pointers such as /fps, or "" for everything; found {pointer!r}')
    if (possible := resettable(parts(pointer))) != pointer:
        raise UsageError(f"{where}: devices cannot reset {pointer}, an element of a list or too long; use {possible!r}")


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), f"a {type(value).__name__}")
