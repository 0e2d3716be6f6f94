"""Whether two recipes say the same, whatever AWS filled in when it stored one of them."""

import re
from collections.abc import Iterator
from typing import Any

Recipe = dict[str, Any]


def artifacts(recipe: Recipe) -> list[dict[str, Any]]:
    return [artifact for manifest in recipe["Manifests"] for artifact in manifest.get("Artifacts") or []]


def file_name(artifact: dict[str, Any]) -> str:
    return str(artifact["Uri"]).rpartition("/")[2]


def normalised(recipe: Recipe, digests: dict[str, str]) -> Recipe:
    """`recipe` as every recipe of the same meaning looks: https://docs.aws.amazon.com/greengrass/v2/developerguide/
    component-recipe-reference.html has the defaults. `digests` are those of artifacts, by file name, which a recipe
    that was not published yet lacks; where in S3 an artifact lies makes no difference.
    """
    made = {"ComponentType": "aws.greengrass.generic", **recipe}
    made |= {key: str(made[key]) for key in ("RecipeFormatVersion", "ComponentVersion")}
    made["ComponentDependencies"] = {
        name: {"DependencyType": "HARD", **dependency}
        for name, dependency in (recipe.get("ComponentDependencies") or {}).items()
    }
    made["Manifests"] = [
        _filled({**m, "Artifacts": [_normalised_artifact(a, digests) for a in m.get("Artifacts") or []]})
        for m in recipe["Manifests"]
    ]
    return _filled(made)


def _normalised_artifact(artifact: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    name = file_name(artifact)
    digest = {"Digest": digests[name], "Algorithm": "SHA-256"} if name in digests else {}
    permission = {"Read": "OWNER", "Execute": "NONE", **artifact.get("Permission", {})}
    made = {"Unarchive": "NONE", **digest, **artifact, "Permission": permission}
    return made | {"Uri": re.sub(r"^(s3|greengrass):.*/", "", artifact["Uri"])}


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def differences(published: Any, built: Any, where: str = "") -> Iterator[str]:
    """What two JSON values differ in, one text for each place."""
    if isinstance(published, dict) and isinstance(built, dict):
        for key in sorted(published.keys() | built.keys()):
            yield from differences(published.get(key), built.get(key), f"{where}/{key}")
    elif isinstance(published, list) and isinstance(built, list) and len(published) == len(built):
        for index, pair in enumerate(zip(published, built, strict=True)):
            yield from differences(*pair, f"{where}/{index}")
    elif published != built:
        yield f"{where}: published {_short(published)}, built {_short(built)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
