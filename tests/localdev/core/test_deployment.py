"""Deployments: versions, configuration, variables, artifacts, removal, and the services of built-in components."""

import http.client
import io
import json
import queue
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from awsiot.greengrasscoreipc import model

from localdev.core import CoreError, DeploymentError, LocalCore
from support import eventually

Connect = Callable[..., Any]
NAME = "test.Component"


def archive(**members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as content:
        for name, text in members.items():
            content.writestr(name.replace("__", "/"), text)
    return data.getvalue()


def printed(core: LocalCore, text: str, name: str = NAME) -> None:
    eventually(lambda: f"stdout. {text}." in core.log(name) or f"stdout. {text}. " in core.log(name), what=text)


class TestConfiguration:
    def test_defaults_then_merge_then_a_new_version(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME, config={"kept": 1, "deep": {"a": 1, "b": [1, 2]}})
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"deep": {"b": [3]}, "own": None}}})
        assert core.configuration(NAME) == {"kept": 1, "deep": {"a": 1, "b": [3]}, "own": None}
        packages.add(NAME, version="1.1.0", config={"kept": 2, "deep": {"a": 2, "c": 2}, "new": 2})
        packages.deploy(core, NAME, version="1.1.0", update_config={NAME: {"RESET": ["/deep/a"]}})
        expected = {"kept": 1, "deep": {"a": 2, "b": [3], "c": 2}, "own": None, "new": 2}
        assert core.configuration(NAME) == expected

    def test_a_change_of_configuration_restarts_only_who_uses_it_in_a_script(
        self, core: LocalCore, packages: Any
    ) -> None:
        packages.add("test.A", config={"n": 1})
        packages.add("test.B", {"run": "echo {configuration:/n}; exec sleep 60"}, config={"n": 1})
        packages.deploy(core, "test.A", "test.B")
        before = (core.pid("test.A"), core.pid("test.B"))
        change = {"MERGE": {"n": 2}}
        packages.deploy(core, "test.A", update_config={"test.A": change, "test.B": change})
        assert core.pid("test.A") == before[0]
        assert core.pid("test.B") != before[1]
        printed(core, "2", "test.B")

    def test_a_running_component_hears_of_the_change(self, core: LocalCore, packages: Any, connect_to: Connect) -> None:
        packages.add(NAME, config={"n": 1, "m": 1})
        packages.deploy(core, NAME)
        events: queue.Queue[Any] = queue.Queue()
        connect_to(core, "test.Watcher").subscribe_to_configuration_update(
            component_name=NAME, key_path=[], on_stream_event=events.put
        )
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 2}}})
        assert events.get(timeout=5).configuration_update_event.key_path == ["n"]

    def test_policies_follow_the_configuration(self, core: LocalCore, packages: Any, connect_to: Connect) -> None:
        policy = {"aws.greengrass.ipc.pubsub": {"p": {"operations": ["*"], "resources": ["a"]}}}
        packages.add(NAME, config={"accessControl": policy})
        packages.deploy(core, NAME)
        message = model.PublishMessage(binary_message=model.BinaryMessage(message=b""))
        client = connect_to(core, NAME)
        client.publish_to_topic(topic="a", publish_message=message)
        with pytest.raises(model.UnauthorizedError):
            client.publish_to_topic(topic="b", publish_message=message)
        policy["aws.greengrass.ipc.pubsub"]["p"]["resources"] = ["b"]
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"accessControl": policy}}})
        client.publish_to_topic(topic="b", publish_message=message)

    def test_a_component_may_reject_its_new_configuration(
        self, core: LocalCore, packages: Any, connect_to: Connect
    ) -> None:
        packages.add(NAME, config={"n": 1})
        packages.deploy(core, NAME)
        client = connect_to(core, NAME)

        def judge(event: Any) -> None:
            proposed = event.validate_configuration_update_event
            status = "ACCEPTED" if proposed.configuration["n"] < 10 else "REJECTED"
            client.send_configuration_validity_report_async(
                configuration_validity_report=model.ConfigurationValidityReport(
                    status=status, deployment_id=proposed.deployment_id, message="n is too large"
                )
            )

        client.subscribe_to_validate_configuration_updates(on_stream_event=judge)
        packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 9}}})
        with pytest.raises(DeploymentError, match=r"\{ name = test\.Component, message = n is too large \}"):
            packages.deploy(core, NAME, update_config={NAME: {"MERGE": {"n": 10}}})
        assert core.configuration(NAME)["n"] == 9
        with pytest.raises(model.InvalidArgumentsError):
            client.send_configuration_validity_report(
                configuration_validity_report=model.ConfigurationValidityReport(status="ACCEPTED", deployment_id="x")
            )

    def test_configuration_of_a_component_that_is_not_deployed(self, core: LocalCore, packages: Any) -> None:
        packages.add(NAME)
        with pytest.raises(DeploymentError, match=r"test\.Absent"):
            packages.deploy(core, NAME, update_config={"test.Absent": {"MERGE": {}}})


class TestVersions:
    def test_the_highest_version_that_satisfies_everyone(self, core: LocalCore, packages: Any) -> None:
        for version in ("1.0.0", "1.1.0", "1.2.0", "2.0.0"):
            packages.add("test.Base", {"run": f"echo base {version}; exec sleep 60"}, version=version)
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "^1.0.0"}})
        packages.add("test.B", depends={"test.Base": {"VersionRequirement": "<1.2.0"}})
        packages.deploy(core, "test.A", "test.B")
        printed(core, "base 1.1.0", "test.Base")

    def test_a_running_version_that_still_fits_is_kept(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.Base")
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.A")
        before = core.pid("test.Base")
        packages.add("test.Base", version="1.1.0")
        packages.add("test.B", depends={"test.Base": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.B")
        assert core.pid("test.Base") == before

    @pytest.mark.parametrize(
        ("requirement", "text"),
        [("^3.0.0", "no version of test.Base satisfies"), ("banana", "is no version range")],
    )
    def test_versions_that_cannot_be_had(self, core: LocalCore, packages: Any, requirement: str, text: str) -> None:
        packages.add("test.Base")
        packages.add(NAME, depends={"test.Base": {"VersionRequirement": requirement}})
        with pytest.raises(DeploymentError, match=text):
            packages.deploy(core, NAME)

    def test_a_circle_of_dependencies(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.A", depends={"test.B": {"VersionRequirement": "*"}})
        packages.add("test.B", depends={"test.A": {"VersionRequirement": "*"}})
        with pytest.raises(DeploymentError, match="circle"):
            packages.deploy(core, "test.A")

    def test_an_unknown_component(self, core: LocalCore) -> None:
        with pytest.raises(DeploymentError, match=r"no version of test\.Absent satisfies =1\.0\.0"):
            core.deploy(merge={"test.Absent": "1.0.0"})

    def test_aws_components_are_provided(self, core: LocalCore, packages: Any) -> None:
        depends = {
            "aws.greengrass.Nucleus": {"VersionRequirement": ">=2.6.0 <3.0.0"},
            "aws.greengrass.TokenExchangeService": {"VersionRequirement": "^2.0.0"},
        }
        packages.add(NAME, depends=depends)
        packages.deploy(core, NAME)
        assert core.state("aws.greengrass.TokenExchangeService") == "RUNNING"


class TestRemoval:
    def test_a_removed_component_is_stopped_and_forgotten_with_what_only_it_needed(
        self, core: LocalCore, packages: Any
    ) -> None:
        packages.add("test.Base")
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "*"}}, config={"n": 1})
        packages.add("test.B")
        packages.deploy(core, "test.A", "test.B")
        core.deploy(remove=["test.A"])
        assert {"test.A", "test.Base"}.isdisjoint(core.names())
        assert core.state("test.B") == "RUNNING"
        assert core.configuration("test.A") == {}

    def test_what_another_component_needs_stays(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.Base")
        packages.add("test.A", depends={"test.Base": {"VersionRequirement": "*"}})
        packages.deploy(core, "test.A", "test.Base")
        before = core.pid("test.Base")
        core.deploy(remove=["test.Base"])
        assert core.pid("test.Base") == before


class TestVariables:
    def test_every_variable(self, core: LocalCore, packages: Any) -> None:
        packages.add("test.Base", config={"port": 8883})
        script = "; ".join(
            f"echo '{name}='{variable}"
            for name, variable in {
                "artifacts": "{artifacts:path}",
                "unpacked": "{artifacts:decompressedPath}",
                "work": "{work:path}",
                "root": "{kernel:rootPath}",
                "thing": "{iot:thingName}",
                "scalar": "{configuration:/deep/true}",
                "object": "'{configuration:/deep}'",
                "other": "{test.Base:configuration:/port}",
                "kept": "'{configuration:/absent} ${HOME:+x} {\"a\":1} {unknown:x}'",
            }.items()
        )
        packages.add(
            NAME,
            {"run": f"{script}; exec sleep 60"},
            config={"deep": {"true": True, "a/b": "t"}},
            depends={"test.Base": {"VersionRequirement": "*"}},
        )
        packages.deploy(core, NAME)
        root = core.root
        for line in (
            f"artifacts={root}/packages/artifacts/{NAME}/1.0.0",
            f"unpacked={root}/packages/artifacts-unarchived/{NAME}/1.0.0",
            f"work={root}/work/{NAME}",
            f"root={root}",
            "thing=laptop",
            "scalar=true",
            'object={"a/b":"t","true":true}',
            "other=8883",
            'kept={configuration:/absent} ${HOME:+x} {"a":1} {unknown:x}',
        ):
            printed(core, line)
        assert "{configuration:/absent} stands for nothing" in core.log("greengrass")

    def test_lite_paths_end_in_a_slash_and_values_are_escaped(self, lite: LocalCore, packages: Any) -> None:
        run = {"Script": 'echo {work:path} "{configuration:/quoted}" "$SET"; exec sleep 60'}
        run["Setenv"] = {"SET": "{configuration:/quoted}"}  # type: ignore[assignment]
        packages.add(NAME, {"run": run}, config={"quoted": 'a "b" $HOME'})
        packages.deploy(lite, NAME)
        printed(lite, f'{lite.root}/work/{NAME}/ a "b" $HOME a "b" $HOME')

    def test_lite_refuses_a_value_that_is_not_there(self, lite: LocalCore, packages: Any) -> None:
        packages.add(NAME, {"run": "echo {configuration:/n}"}, config={"n": 1})
        packages.deploy(lite, NAME)
        packages.add(NAME, {"run": "echo {configuration:/m}"}, config={"n": 1})
        with pytest.raises(DeploymentError, match="not in DefaultConfiguration"):
            packages.deploy(lite, NAME)


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


class TestServices:
    def test_credentials_for_whoever_has_a_token(self, tmp_path: Path, packages: Any) -> None:
        packages.add(
            NAME,
            {"run": "echo $AWS_CONTAINER_CREDENTIALS_FULL_URI > uri; exec sleep 60"},
            depends={"aws.greengrass.TokenExchangeService": {"VersionRequirement": "^2.0.0"}},
        )
        given = {"AccessKeyId": "AKIA", "SecretAccessKey": "s", "Token": "t"}
        with LocalCore(tmp_path / "core", credentials=given) as core:
            packages.deploy(core, NAME)
            file = core.root / "work" / NAME / "uri"
            uri = eventually(lambda: file.read_text().strip() if file.exists() else "", what="uri")
            match = re.fullmatch(r"http://(localhost:\d+)(/2016-11-01/credentialprovider/)", uri)
            assert match
            address, path = match.groups()
            token = {"Authorization": core.token(NAME)}
            status, body = _ask(address, "GET", path, token)
            credentials = json.loads(body)
            assert (status, {key: credentials[key] for key in given}) == (200, given)
            assert credentials["Expiration"].endswith("Z")
            assert _ask(address, "GET", path, {})[0] == 403
            assert _ask(address, "GET", path, {"Authorization": "WRONG"})[0] == 403
            assert _ask(address, "POST", path, token)[0] == 405
            assert _ask(address, "GET", "/latest", token)[0] == 404

    def test_lite_gives_the_credentials_address_to_direct_dependers_only(self, lite: LocalCore, packages: Any) -> None:
        show = {"run": "echo uri=$AWS_CONTAINER_CREDENTIALS_FULL_URI; exec sleep 60"}
        packages.add("test.With", show, depends={"aws.greengrass.TokenExchangeService": {"VersionRequirement": "*"}})
        packages.add("test.Without", show)
        packages.deploy(lite, "test.With", "test.Without")
        eventually(lambda: "uri=http://localhost" in lite.log("test.With"), what="address")
        printed(lite, "uri=", "test.Without")

    def test_secrets(self, tmp_path: Path, packages: Any, connect_to: Connect) -> None:
        secrets = {"token": "s3cret", "key": {"arn": "arn:aws:x:key", "secretBinary": "AAE="}}
        file = tmp_path / "secrets.json"
        file.write_text(json.dumps(secrets))
        policy = {"aws.greengrass.SecretManager": {"p": {"operations": ["*"], "resources": ["*:token-*", "*:absent"]}}}
        with LocalCore(tmp_path / "core", secrets=file) as core:
            client = connect_to(core, "test.Narrow", policy)
            with pytest.raises(model.ServiceError):
                client.get_secret_value(secret_id="token")  # the secret manager is not deployed
            core.deploy(merge={"aws.greengrass.SecretManager": "2.0.0"})
            answer = client.get_secret_value(secret_id="token")
            assert answer.secret_value.secret_string == "s3cret"
            assert answer.version_stage == ["AWSCURRENT"]
            assert client.get_secret_value(secret_id=answer.secret_id).secret_value.secret_string == "s3cret"
            with pytest.raises(model.UnauthorizedError):
                client.get_secret_value(secret_id="key")
            assert connect_to(core).get_secret_value(secret_id="key").secret_value.secret_binary == b"\0\1"
            for wrong in ({"secret_id": "x:absent"}, {"secret_id": "token", "version_stage": "AWSPREVIOUS"}):
                with pytest.raises(model.ResourceNotFoundError):
                    client.get_secret_value(**wrong)

    def test_a_secrets_file_that_is_unusable(self, tmp_path: Path) -> None:
        with (
            pytest.raises(ValueError, match="neither secretString nor secretBinary"),
            LocalCore(tmp_path, secrets={"a": {}}),
        ):
            pass


def _ask(address: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_one_core_per_root(core: LocalCore) -> None:
    with pytest.raises(CoreError, match="already runs"), LocalCore(core.root):
        pass


def test_a_root_too_deep_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    root = tmp_path / ("deep" * 30)
    root.mkdir()
    with LocalCore(root) as core:
        assert len(str(core.socket)) < 108
        folder = core.socket.parent
        assert core.add_principal("x", {})
    assert not folder.exists()
