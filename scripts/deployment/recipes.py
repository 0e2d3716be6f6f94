"""What a recipe says of its artifacts."""

from typing import Any

Recipe = dict[str, Any]


def artifacts(recipe: Recipe) -> list[dict[str, Any]]:
    return [artifact for manifest in recipe["Manifests"] for artifact in manifest.get("Artifacts") or []]


def file_name(artifact: dict[str, Any]) -> str:
    return str(artifact["Uri"]).rpartition("/")[2]
