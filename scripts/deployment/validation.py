"""Configuration held against what components take, before anything is published or deployed.

A component of this tree is asked itself: its Config, from which recipes/schema/<component>.json is made, converts what
a device would have as the device would, numbers in text and integers as doubles included. Components of others, which
have no Config here, are taken as they are.
"""

import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from deployment import UsageError
from deployment.configuration import Update
from deployment.revision import Components

ROOT = Path(__file__).resolve().parent.parent.parent


def check(components: Components, names: Iterable[str]) -> list[str]:
    """Warnings about the configuration of `names` in `components`. Raises UsageError for what a device would refuse."""
    known = {recipe.resolve().stem: recipe.parent.name for recipe in (ROOT / "components").glob("*/recipe.yaml")}
    return [text for name in sorted(set(names) & known.keys()) for text in _check(name, known[name], components[name])]


def _check(name: str, package: str, specification: dict[str, Any]) -> list[str]:
    configuration, errors = importlib.import_module("edgeml.config"), importlib.import_module("edgeml.errors")
    kind: type[msgspec.Struct] = importlib.import_module(f"{package}.config").Config
    recipe = yaml.load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    raw = _filled(Update.of(specification).merge, recipe["ComponentConfiguration"]["DefaultConfiguration"])
    warnings = [f"{name}: {sentence}" for _, sentence in configuration.unknown_keys(kind, raw)]
    try:
        configuration.load(kind, raw)
    except errors.ConfigError as error:
        version, here = specification["componentVersion"], recipe["ComponentVersion"]
        if version != here:
            return [*warnings, f"{name} {version}: version {here} of this tree would refuse it: {error}"]
        if "missing required field" in str(error):  # devices may have it from deployments that we do not see
            return [*warnings, f"{name}: {error}"]
        raise UsageError(f"{name}: {error}") from error
    return warnings


def _filled(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """As a device that knows no earlier deployment has them: defaults fill the gaps."""
    below = {key for key in values.keys() & defaults.keys() if isinstance(values[key], dict)}
    deeper = {key: _filled(values[key], defaults[key]) for key in below if isinstance(defaults[key], dict)}
    return defaults | values | deeper
