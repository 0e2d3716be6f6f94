"""Every bundle under components/model_store: it builds, is what model.json says, and its model runs."""

import hashlib
import importlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from edgeml import models
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer_support import pipeline
from localdev.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in ROOT.glob("components/model_store/*/model.json"))
bundles = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def build(folder: Path, out: Path) -> Path:
    importlib.import_module(f"model_store.{folder.name}.build").build(out)
    return out


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@bundles
def test_a_bundle_is_built_alike_every_time_and_its_model_runs(folder: Path, tmp_path: Path) -> None:
    first = build(folder, tmp_path / "first")
    (elsewhere,) = Workspace().build([folder.name])  # which other tests use, mostly made by another process
    shutil.unpack_archive(next(elsewhere.glob("artifacts/*/*/*.zip")), tmp_path / "second")
    assert contents(first) == contents(tmp_path / "second")
    bundle = models.load(first)
    session = models.open_session(bundle, threads=1)
    models.probe(session, bundle)
    runner_of(bundle, session, pipeline(OnnxBackend(model="M"), CameraSource(camera="c"))).rehearse()
    assert bundle.manifest.license
    assert bundle.manifest.source
    assert set(contents(first)) == {
        "model.onnx",
        "model.json",
        *bundle.manifest.files,
        *(v.file for v in bundle.manifest.variants),
    }


@bundles
def test_recipe_configuration_and_bundle_agree_on_name_and_version(folder: Path) -> None:
    manifest = models.read_manifest(folder)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    ((name, gdk),) = json.loads((folder / "gdk-config.json").read_text())["component"].items()
    assert name == recipe["ComponentName"] == f"edgeml.model.{manifest.name}"
    assert gdk["version"] == recipe["ComponentVersion"] == manifest.version
    artifact = recipe["Manifests"][0]["Artifacts"][0]
    assert artifact["Uri"].endswith(f"/{folder.name}.zip")
    assert artifact["Permission"]["Read"] == "ALL"  # other components read the bundle


@bundles
@pytest.mark.parametrize("slash", ["", "/"], ids=["java", "lite"])
def test_the_run_step_links_the_bundle_and_switches_to_a_newer_one(folder: Path, slash: str, tmp_path: Path) -> None:
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    lifecycle = recipe["Manifests"][0]["Lifecycle"]
    assert list(lifecycle) == ["run"]
    work = tmp_path / "work folder"
    work.mkdir()
    for version in ("1.0.0", "1.0.1"):
        unpacked = tmp_path / version
        (unpacked / folder.name).mkdir(parents=True)
        (unpacked / folder.name / "model.json").touch()
        script = lifecycle["run"]["Script"]
        script = script.replace("{artifacts:decompressedPath}", f"{unpacked}{slash}").replace(
            "{work:path}", f"{work}{slash}"
        )
        subprocess.run(["sh", "-c", script], check=True, timeout=10)
        assert (work / "current").resolve() == unpacked / folder.name
    assert [path.name for path in work.iterdir()] == ["current"]


def test_the_run_step_fails_when_the_artifact_was_not_unpacked(tmp_path: Path) -> None:
    recipe = yaml.safe_load((FOLDERS[0] / "recipe.yaml").read_text())
    script = recipe["Manifests"][0]["Lifecycle"]["run"]["Script"]
    script = script.replace("{artifacts:decompressedPath}", str(tmp_path)).replace("{work:path}", str(tmp_path))
    assert subprocess.run(["sh", "-c", script], check=False, timeout=10).returncode != 0
    assert not (tmp_path / "current").exists()
