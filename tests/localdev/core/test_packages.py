"""What deployments make of artifacts and recipes: unpacked, with their modes, stored, refused."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from core_support import NAME, printed
from localdev.core import DeploymentError, LocalCore


def archive(**members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as content:
        for name, text in members.items():
            content.writestr(name.replace("__", "/"), text)
    return data.getvalue()


class TestArtifacts:
    URI = "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/"

    def test_a_zip_is_unpacked_into_a_folder_of_its_name(self, core: LocalCore, packages: Any) -> None:
        packages.artifact(
            NAME, "code.zip", archive(**{"main.sh": "echo from the zip; exec sleep 60", "lib__a.txt": "a"})
        )
        packages.add(
            NAME,
            {"run": "sh {artifacts:decompressedPath}/code/main.sh"},
            artifacts=[{"Uri": self.URI + "code.zip", "Unarchive": "ZIP"}],
        )
        packages.deploy(core, NAME)
        printed(core, "from the zip")
        unpacked = core.root / "packages" / "artifacts-unarchived" / NAME / "1.0.0" / "code"
        assert (unpacked / "lib" / "a.txt").read_text() == "a"
        assert (unpacked / "main.sh").stat().st_mode & 0o777 == 0o440
        assert unpacked.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize(
        ("permission", "mode"),
        [
            ({}, 0o440),
            ({"Read": "ALL"}, 0o444),
            ({"Execute": "OWNER"}, 0o550),
            ({"Read": "ALL", "Execute": "ALL"}, 0o555),
            ({"Read": "NONE", "Execute": "NONE"}, 0o000),
        ],
    )
    def test_modes(self, core: LocalCore, packages: Any, permission: dict[str, str], mode: int) -> None:
        packages.artifact(NAME, "file.bin", b"x")
        packages.add(NAME, artifacts=[{"Uri": self.URI + "file.bin", "Permission": permission}])
        packages.deploy(core, NAME)
        path = core.root / "packages" / "artifacts" / NAME / "1.0.0" / "file.bin"
        assert path.stat().st_mode & 0o777 == mode

    def test_changed_files_of_one_version_are_installed_anew(self, core: LocalCore, packages: Any) -> None:
        packages.add(
            NAME,
            {"install": "echo installed", "run": "sh {artifacts:decompressedPath}/code/main.sh"},
            artifacts=[{"Uri": self.URI + "code.zip", "Unarchive": "ZIP"}],
        )
        for text in ("one", "two"):
            packages.artifact(NAME, "code.zip", archive(**{"main.sh": f"echo {text}; exec sleep 60"}))
            packages.deploy(core, NAME)
            printed(core, text)
        assert core.log(NAME).count("stdout. installed.") == 2
        before = core.pid(NAME)
        packages.deploy(core, NAME)
        assert core.pid(NAME) == before

    @pytest.mark.parametrize("member", ["../out.txt", "/abs.txt", "a/../../out.txt"])
    def test_a_zip_that_would_leave_its_folder_is_refused(self, core: LocalCore, packages: Any, member: str) -> None:
        packages.artifact(NAME, "bad.zip", archive(**{member: "x"}))
        packages.add(NAME, artifacts=[{"Uri": self.URI + "bad.zip", "Unarchive": "ZIP"}])
        with pytest.raises(DeploymentError, match="would leave its folder"):
            packages.deploy(core, NAME)
        assert not list(core.root.rglob("out.txt"))

    def test_a_file_that_is_no_zip(self, core: LocalCore, packages: Any) -> None:
        packages.artifact(NAME, "bad.zip", b"no zip")
        packages.add(NAME, artifacts=[{"Uri": self.URI + "bad.zip", "Unarchive": "ZIP"}])
        with pytest.raises(DeploymentError, match=r"bad\.zip: File is not a zip file"):
            packages.deploy(core, NAME)

    def test_an_artifact_that_is_not_there(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME, artifacts=[{"Uri": self.URI + "absent.zip"}])
        with pytest.raises(DeploymentError, match=r"expected test\.Component/1\.0\.0/absent\.zip"):
            packages.deploy(core, NAME)


class TestRecipes:
    def test_stored_recipes_serve_later_deployments_and_cores(self, tmp_path: Path, packages: Any) -> None:
        packages.add(NAME)
        with LocalCore(tmp_path / "core") as core:
            core.deploy([packages.recipes])
        with LocalCore(tmp_path / "core") as core:
            core.deploy(merge={NAME: "1.0.0"})
            assert core.state(NAME) == "RUNNING"

    def test_json_recipes_keep_their_types_in_lite_and_yaml_ones_become_strings(
        self, lite: LocalCore, packages: Any
    ) -> None:
        config = {"number": 0.5, "flag": True, "list": [1, {"x": None}]}
        yaml_file = packages.add("test.Yaml", config=config)
        document = yaml.safe_load(yaml_file.read_text())
        document["ComponentName"] = "test.Json"
        (packages.recipes / "j.json").write_text(json.dumps(document))
        packages.deploy(lite, "test.Yaml", "test.Json")
        assert lite.configuration("test.Json") == config
        assert lite.configuration("test.Yaml") == {"number": "0.5", "flag": "true", "list": ["1", {"x": "null"}]}

    def test_a_recipe_that_lite_refuses_fails_the_deployment_with_the_reason(
        self, lite: LocalCore, packages: Any
    ) -> None:
        packages.add(NAME, {"Run": "true"})
        with pytest.raises(DeploymentError, match="Run must be written run"):
            packages.deploy(lite, NAME)

    def test_a_recipe_that_is_no_yaml(self, core: LocalCore, packages: Any) -> None:
        (packages.recipes / "broken.yaml").write_text("a: [")
        with pytest.raises(DeploymentError, match=r"broken\.yaml"):
            core.deploy([packages.recipes])

    def test_bootstrap_is_refused(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME, {"bootstrap": "true", "run": "true"})
        with pytest.raises(DeploymentError, match="bootstrap"):
            packages.deploy(core, NAME)
