"""What GDK and the core need of a build, asserted without GDK; with `gdk` on PATH, by GDK itself."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import build as build_script
from edgeml.errors import BundleError
from localdev import workspace
from support import ROOT

PACKAGES = sorted(p.parent.name for p in (ROOT / "components").glob("*/gdk-config.json"))
FOLDERS = sorted(p.parent for depth in ("*", "*/*") for p in (ROOT / "components").glob(f"{depth}/gdk-config.json"))


@pytest.fixture(scope="module")
def builds() -> workspace.Workspace:
    return workspace.Workspace()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_build_has_what_gdk_looks_for(package: str, builds: workspace.Workspace) -> None:
    (build,) = builds.build([package])
    folder = ROOT / "components" / package
    recipe_name = (folder / "recipe.yaml").resolve().name
    recipe = yaml.load((build / "recipes" / recipe_name).read_text(), yaml.CSafeLoader)
    ((name, settings),) = json.loads((folder / "gdk-config.json").read_text())["component"].items()
    assert (recipe["ComponentName"], recipe["ComponentVersion"]) == (name, settings["version"])
    artifacts = build / "artifacts" / name / settings["version"]
    assert [path.name for path in artifacts.iterdir()] == [f"{package}.zip"]  # flat: GDK cannot publish folders
    (artifact,) = recipe["Manifests"][0]["Artifacts"]
    assert artifact["Uri"] == f"s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/{package}.zip"
    with zipfile.ZipFile(artifacts / f"{package}.zip") as archive:
        names = set(archive.namelist())
    assert {"__main__.py", "requirements.lock", "edgeml/install.py", f"{package}/__main__.py"} <= names
    assert not [name for name in names if "__pycache__" in name or "recipe.yaml" in name or "greengrass-build" in name]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_unpacked_artifact_runs_as_a_folder_without_any_variable(
    package: str, builds: workspace.Workspace, tmp_path: Path
) -> None:
    """As the recipes run it: isolated, from another folder, by a path with slashes as Lite writes them."""
    builds.lend_venvs([package], tmp_path)  # and its code, unpacked and compiled
    (unpacked,) = tmp_path.glob(f"packages/artifacts-unarchived/*/*/{package}")
    (tmp_path / "artifact").symlink_to(unpacked)
    command = [sys.executable, "-I", "-u", f"{tmp_path}//artifact/", "--help"]
    done = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--standalone" in done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_version_and_name_are_the_same_everywhere(package: str) -> None:
    folder = ROOT / "components" / package
    ((name, settings),) = json.loads((folder / "gdk-config.json").read_text())["component"].items()
    code = f"import {package}; print({package}.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "components", capture_output=True, text=True)
    assert done.stdout.strip() == settings["version"]
    recipe = (folder / "recipe.yaml").resolve()
    assert recipe == ROOT / "recipes" / f"{name}.yaml"
    assert yaml.load(recipe.read_text(), yaml.CSafeLoader)["ComponentVersion"] == settings["version"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_gdk_configuration_is_complete(folder: Path) -> None:
    """What GDK's own schema demands: see its static/config_schema.json."""
    config = json.loads((folder / "gdk-config.json").read_text())
    ((_, settings),) = config["component"].items()
    assert settings["author"]
    assert settings["build"]["build_system"] == "custom"
    command = settings["build"]["custom_build_command"]
    assert (folder / command[1]).resolve() == ROOT / "scripts" / "build.py"
    assert settings["publish"].keys() >= {"bucket", "region"}
    assert config["gdk_version"] == "1.3.0"


def test_the_same_sources_give_the_same_bytes(builds: workspace.Workspace, tmp_path: Path) -> None:
    (build,) = builds.build(["camera_capture"])
    (first,) = build.glob("artifacts/*/*/*.zip")
    digest = hashlib.sha256(first.read_bytes()).hexdigest()
    copy = tmp_path / "copy"
    others_write = shutil.ignore_patterns("greengrass-build", "__pycache__")
    scripts = ("scripts/build.py", "scripts/device_wheels.py")
    wanted = ("components/camera_capture", "components/edgeml", "recipes", "gdk-config", *scripts)
    for part in wanted:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, symlinks=True, ignore=others_write)
        else:
            (copy / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / part, copy / part)
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
    subprocess.run(["python3", "../../scripts/build.py"], cwd=copy / "components" / "camera_capture", check=True)
    (second,) = (copy / "components").glob("camera_capture/greengrass-build/artifacts/*/*/*.zip")
    assert hashlib.sha256(second.read_bytes()).hexdigest() == digest


def test_a_bundle_with_another_file_than_its_model_json_names_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "duration"
    shutil.copytree(ROOT / "components" / "model_store" / "duration", folder)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="sha256"):
        build_script.build(folder)


@pytest.mark.parametrize("package", ["log_shipper", "sample_requester"])
@pytest.mark.parametrize("unprivileged", [False, True], ids=["as it is", "unprivileged"])
@pytest.mark.parametrize("python", ["python3.12", "/opt/python-3.10/.local/bin/python3"])
def test_every_step_runs_the_interpreter_that_was_named(
    tmp_path: Path, package: str, unprivileged: bool, python: str
) -> None:
    folder = tmp_path / package
    shutil.copytree(
        ROOT / "components" / package, folder, ignore=shutil.ignore_patterns("build.py", "greengrass-build")
    )
    unprivileged = unprivileged and (folder / "unprivileged.yaml").exists()
    texts = {}
    for name in ("python3", python):
        made = build_script.build(folder, unprivileged=unprivileged, python=name)
        (recipe,) = made.glob("recipes/*")
        texts[name] = re.sub(r"[0-9a-f]{64}", "", recipe.read_text(encoding="utf-8"))
    assert texts["python3"].count("python3 -I ") >= 1
    assert texts[python] == texts["python3"].replace("python3 -I ", f"{python} -I ")
    recipe_of = yaml.load(texts[python], yaml.CSafeLoader)
    (lifecycle,) = (manifest["Lifecycle"] for manifest in recipe_of["Manifests"])
    assert all("python3 " not in step["Script"].replace(python, "") for step in lifecycle.values())


PATHS = ["", "3.12", "./python3", "../python3", "/opt/../python3", "/opt//python3", "/opt/", "~/python3", "p" * 101]
SIGNS = ["python3 -c", "python3;id", "$(id)", "`id`", "a|b", "a&b", "a>b", "a\nb", "python3\n", "{work:path}", "é"]


@pytest.mark.parametrize("python", PATHS + SIGNS)
def test_what_a_shell_would_read_is_no_interpreter(python: str) -> None:
    with pytest.raises(SystemExit, match=r"(?s)^--python .*: expected a name as python3.12, or an absolute path"):
        build_script.interpreter(python)


RUNTIMES = [path.stem.partition("-")[2] for path in (ROOT / "components").glob("inferencer/requirements-*.lock")]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_runtime_is_a_word_in_the_recipe_and_a_lock_in_the_same_artifact(runtime: str, tmp_path: Path) -> None:
    folder = tmp_path / "inferencer"
    shutil.copytree(ROOT / "components" / "inferencer", folder, ignore=shutil.ignore_patterns("greengrass-build"))
    made = {}
    for name in ("cpu", runtime):
        build = build_script.build(folder, runtime=name)
        (archive,), (recipe,) = build.glob("artifacts/*/*/*.zip"), build.glob("recipes/*")
        made[name] = hashlib.sha256(archive.read_bytes()).hexdigest(), recipe.read_text(encoding="utf-8")
        with zipfile.ZipFile(archive) as zipped:
            locks = {entry for entry in zipped.namelist() if "requirements" in entry}
    assert locks == {"requirements.lock", *(f"requirements-{each}.lock" for each in RUNTIMES)}
    assert made[runtime][0] == made["cpu"][0]
    assert made[runtime][1] == made["cpu"][1].replace('install.py"\n', f'install.py" {runtime}\n') != made["cpu"][1]


def test_a_runtime_that_there_is_not_is_refused() -> None:
    with pytest.raises(SystemExit, match=r"^--runtime tpu: inferencer has cpu, cuda$"):
        build_script.build(ROOT / "components" / "inferencer", runtime="tpu")


def test_a_runtime_differs_by_its_own_build_alone() -> None:
    """Of the same release where there is one; another module of that name would stand in the first one's place."""
    needs = (ROOT / "components" / "inferencer" / "requirements.in").read_text(encoding="utf-8")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "components/inferencer").glob("*.lock")}
    pins = {name: set(re.findall(r"^([\w-]+==[^\\\n]+)", text, re.MULTILINE)) for name, text in texts.items()}
    assert "onnxruntime" in needs
    assert pins["requirements-cuda"] == {
        pin.replace("onnxruntime==", "onnxruntime-gpu==") for pin in pins["requirements"]
    }
    wanted = (ROOT / "components" / "inferencer" / "requirements-cuda.in").read_text(encoding="utf-8")
    assert wanted == needs.replace("onnxruntime\n", "onnxruntime-gpu\n")


def test_an_unknown_component_is_named() -> None:
    done = subprocess.run([sys.executable, "scripts/build.py", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no component 'nothing', there are " in done.stderr


def test_gdk_itself_builds(tmp_path: Path) -> None:
    if shutil.which("gdk") is None:
        pytest.skip("gdk is not on PATH")
    folder = ROOT / "components" / "camera_capture"
    # GDK asks the network for newer versions of itself without a timeout; a closed proxy answers at once.
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
    subprocess.run(["gdk", "component", "build"], cwd=folder, env=environment, check=True, timeout=120)
    assert (folder / "greengrass-build" / "recipes" / "edgeml.CameraCapture.yaml").exists()
