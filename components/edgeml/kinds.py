"""One of several kinds, chosen by `type` in the configuration. Each is a module with a struct of its own.

A component has a table of them, {module: name of the struct}. A struct that says `untagged: ClassVar[bool] = True` is
what an object without `type` is taken for.
"""

import importlib
from collections.abc import Mapping
from typing import Any, Union


def union(package: str, kinds: Mapping[str, str]) -> Any:
    """The structs of all kinds of a table as one type."""
    found = [getattr(importlib.import_module(f"{package}.{module}"), name) for module, name in kinds.items()]
    return Union[tuple(found)]  # noqa: UP007  (not known before)
