"""Greengrass component versions: recipes are checked and completed, artifacts must be there and get digests."""

import base64
import hashlib
import json
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import yaml

from localdev.cloud.aws import ACCOUNT, REGION, LocalAws

ARN = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:components"
PUBLIC = re.compile(rf"arn:aws:greengrass:{REGION}:aws:components:(aws\.greengrass\.[^:]+):versions:([^:]+)")
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
MAX_RECIPE_BYTES = 16_000

Answer = dict[str, Any]


class ApiError(Exception):
    """One of the API's errors, with its HTTP status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def invalid(message: str) -> ApiError:
    return ApiError(400, "ValidationException", message)


def missing(message: str) -> ApiError:
    return ApiError(404, "ResourceNotFoundException", message)


@dataclass
class Component:
    name: str
    version: str
    recipe: dict[str, Any]
    created: float

    @property
    def arn(self) -> str:
        return f"{ARN}:{self.name}:versions:{self.version}"


class Components:
    """The operations on components, by the API's names in snake case; parameters and answers are the API's JSON."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._by_arn: dict[str, Component] = {}

    def create(self, p: dict[str, Any]) -> Answer:
        recipe = parse_recipe(base64.b64decode(p["inlineRecipe"]))
        component = Component(recipe["ComponentName"], str(recipe["ComponentVersion"]), recipe, time.time())
        if component.arn in self._by_arn:
            raise ApiError(
                409, "ConflictException", f"Component [{component.name} : {component.version}] already exists"
            )
        for manifest in recipe["Manifests"]:
            for artifact in manifest.get("Artifacts", []):
                artifact |= {"Digest": self._digest(artifact["Uri"]), "Algorithm": "SHA-256"}
        component.recipe = _completed(recipe)
        self._by_arn[component.arn] = component
        return self.describe({"arn": component.arn})

    def describe(self, p: dict[str, Any]) -> Answer:
        """Of AWS' own components (aws.greengrass.*) every version exists here."""
        public = PUBLIC.fullmatch(p["arn"])
        component = Component(public[1], public[2], {}, 0.0) if public else self._component(p["arn"])
        return {
            "arn": p["arn"],
            "componentName": component.name,
            "componentVersion": component.version,
            "creationTimestamp": component.created,
            "status": {"componentState": "DEPLOYABLE", "message": "NONE", "errors": {}},
        }

    def get(self, p: dict[str, Any]) -> Answer:
        recipe, kind = self._component(p["arn"]).recipe, p.get("recipeOutputFormat", "JSON")
        text = yaml.safe_dump(recipe, sort_keys=False) if kind == "YAML" else json.dumps(recipe)
        return {"recipeOutputFormat": kind, "recipe": base64.b64encode(text.encode()).decode()}

    def delete(self, p: dict[str, Any]) -> Answer:
        del self._by_arn[self._component(p["arn"]).arn]
        return {}

    def list_versions(self, p: dict[str, Any]) -> Answer:
        versions = [c for c in self._by_arn.values() if c.arn.startswith(f"{p['arn']}:versions:")]
        versions.sort(key=lambda c: [int(part) for part in c.version.partition("-")[0].split(".")], reverse=True)
        items = [{"componentName": c.name, "componentVersion": c.version, "arn": c.arn} for c in versions]
        return page("componentVersions", items, p)

    def list_all(self, p: dict[str, Any]) -> Answer:
        names = sorted({c.name for c in self._by_arn.values()})
        return page("components", [{"arn": f"{ARN}:{name}", "componentName": name} for name in names], p)

    def _component(self, arn: str) -> Component:
        if arn not in self._by_arn:
            raise missing(f"Component version {arn} does not exist")
        return self._by_arn[arn]

    def _digest(self, uri: str) -> str:
        where = urlsplit(uri)
        if where.scheme != "s3":
            raise invalid(f"The artifact URI {uri} is not an s3:// URI")
        s3 = self._aws.client("s3")
        try:
            body = s3.get_object(Bucket=where.netloc, Key=where.path[1:])["Body"].read()
        except s3.exceptions.ClientError as error:
            raise invalid(f"Specified artifact resource cannot be accessed: {uri}") from error
        return base64.b64encode(hashlib.sha256(body).digest()).decode()


def parse_recipe(data: bytes) -> dict[str, Any]:
    """The recipe, checked for what AWS' recipe schema requires; the texts are a stand-in's own. Raises ApiError."""
    if len(data) > MAX_RECIPE_BYTES:
        raise invalid(f"the recipe has {len(data)} bytes, {MAX_RECIPE_BYTES} are allowed")
    try:
        recipe = yaml.load(data, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise invalid(f"the recipe is neither JSON nor YAML: {error}") from error
    if not isinstance(recipe, dict) or str(recipe.get("RecipeFormatVersion")) != "2020-01-25":
        raise invalid('RecipeFormatVersion must be "2020-01-25"')
    name, version = recipe.get("ComponentName", ""), str(recipe.get("ComponentVersion", ""))
    if not re.fullmatch(r"[a-zA-Z0-9._-]{1,128}", name):
        raise invalid(f"ComponentName {name!r} is not valid")
    if not VERSION.fullmatch(version):
        raise invalid(f"ComponentVersion {version!r} is not a semantic version")
    if not isinstance(recipe.get("Manifests"), list) or not recipe["Manifests"]:
        raise invalid("the recipe has no Manifests")
    return recipe


def _completed(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe as AWS returns it: with what it leaves out, by the defaults of aws-greengrass-component-common."""
    recipe = {"ComponentType": "aws.greengrass.generic", **recipe}
    if "ComponentDependencies" in recipe:
        recipe["ComponentDependencies"] = {
            name: {"DependencyType": "HARD", **dependency}
            for name, dependency in recipe["ComponentDependencies"].items()
        }
    recipe["Manifests"] = [
        {"Lifecycle": {}, **manifest, "Artifacts": [_completed_artifact(a) for a in manifest.get("Artifacts", [])]}
        for manifest in recipe["Manifests"]
    ]
    return {**recipe, "Lifecycle": recipe.get("Lifecycle", {})}


def _completed_artifact(artifact: dict[str, Any]) -> dict[str, Any]:
    permission = {"Read": "OWNER", "Execute": "NONE", **artifact.get("Permission", {})}
    return {"Unarchive": "NONE", **artifact, "Permission": permission}


def page(key: str, items: list[Answer], p: dict[str, Any]) -> Answer:
    start, size = int(p.get("nextToken", 0)), int(p.get("maxResults", 50))
    page: Answer = {key: items[start : start + size]}
    return page | ({"nextToken": str(start + size)} if start + size < len(items) else {})
