"""The local core's answers beside those of real cores: see parity/README.md."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import deploy
from localdev.cloud.broker import Broker
from localdev.core import LocalCore
from parity_operations import operations
from parity_support import Changes, Probe, configured, updated
from support import eventually

RECORDS = Path(__file__).parent / "parity"
PROFILES = {"java": "java-2.18.json", "lite": "lite-2.6.json"}
CONFIGURATION = {
    "text": "hello",
    "number": 0.5,
    "flag": True,
    "list": [1, "two", 3.5, False],
    "deep": {"inner": {"x": 1}, "y": "2"},
    "empty": {},
    "quoted": 'a "b" $c',
}
POLICIES = {
    "aws.greengrass.ipc.pubsub": {"p": {"operations": ["*"], "resources": ["probe/*"]}},
    "aws.greengrass.ipc.mqttproxy": {
        "p": {"operations": ["*"], "resources": ["probe/#", "plus/+/end", "mine/{iot:thingName}/x"]}
    },
}
SHOW = 'exec python3 -u "{artifacts:path}/show.py" "{configuration:/text}" "{work:path}" "{configuration:/deep}"'
SHOW_SCRIPT = """\
import json, os, sys, time
parent = open(f"/proc/{os.getppid()}/cmdline").read().replace(chr(0), " ")
about = {"cwd": os.getcwd(), "stdin": os.readlink("/proc/self/fd/0"), "umask": oct(os.umask(0o22)), "ppid": parent}
about |= {"env": sorted(os.environ), "setenv": os.environ["PROBE"], "argv": sys.argv[1:]}
open("about.new", "w").write(json.dumps(about))
os.rename("about.new", "about.json")
time.sleep(600)
"""

_EARLIER = "what was recorded also holds messages of operations before it, whose broker connection had been broken"
KEPT: dict[str, dict[str, str]] = {  # differences on purpose, with their reason
    "java": {
        "sub config whole, 2 leaves": "what was recorded are late events of the operation before it, cut short",
    },
    "lite": {
        "iot empty payload": _EARLIER,
        "iot sub +": _EARLIER,
        "iot sub #": _EARLIER,
        "iot retain": _EARLIER,
        "iot mqtt5 properties": "the broken connection had not come back within the time; alone the message arrives",
        "iot burst 40 x 2000 B qos1": "how many pass depends on how soon the broker acknowledges: some, not all, do",
    },
}

Believed = tuple[str, Callable[[Probe], Any], str]
_DENIED = "UnauthorizedError(Principal test.Probe is not authorized to perform aws.greengrass.Cli:aws.greengrass#"


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture(params=list(PROFILES))
def core(request: pytest.FixtureRequest, broker: Broker) -> Iterator[LocalCore]:
    """A core whose root every user can enter, so that the java profile uses sudo where it can."""
    folder = Path(tempfile.mkdtemp(prefix="edgeml-parity-"))
    folder.chmod(0o755)
    settings: dict[str, Any] = {"profile": request.param, "mqtt_url": broker.url, "thing_name": "Thing"}
    try:
        with LocalCore(folder / "core", **settings) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["core"])


@pytest.fixture
def probe(core: LocalCore, packages: Any, profile: str) -> Iterator[Probe]:
    """A client that acts as the deployed component test.Probe."""
    pairs = ("text", "number", "flag", "list", "deep") if profile == "java" else ("text",)
    setenv = " ".join(f"{name}={{configuration:/{name}}}" for name in pairs)
    setenv += " q={configuration:/quoted}" if profile == "java" else ""
    packages.artifact("test.Probe", "show.py", SHOW_SCRIPT.encode())
    run = {"Script": f'{SHOW} "{{iot:thingName}}"', "Setenv": {"PROBE": setenv}}
    config = {**CONFIGURATION, "accessControl": POLICIES}
    packages.add("test.Probe", {"run": run}, config=config, artifacts=[{"Uri": "s3://b/show.py"}])
    packages.add("test.Observer", config={"accessControl": {}})
    names = {"test.Probe": "1.0.0", "test.Observer": "1.0.0"}
    if profile == "java":
        names["aws.greengrass.TokenExchangeService"] = "2.0.0"
    deploy(core, [packages.folder], names)
    eventually(lambda: core.online, what="the broker")
    asking = Probe(str(core.socket), core.token("test.Probe"), "Thing")
    yield asking
    asking.close()


def record(profile: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDS / PROFILES[profile]).read_text())
    return found


def test_every_answer_is_that_of_the_real_core(probe: Probe, profile: str) -> None:
    recorded, asked = record(profile), dict(operations())
    assert len(asked) == len(list(operations()))
    about = {"env", "cwd", "umask", "uid", "stdin", "setenv", "argv", "ppid", "connect with a wrong token"}
    assert not recorded.keys() - asked.keys() - about, "recorded operations that nobody asks"
    answers = {name: probe.ask(operation) for name, operation in asked.items() if name in recorded}
    differences = [
        f"{name}\n  real  {recorded[name]}\n  local {answer}"
        for name, answer in answers.items()
        if answer != recorded[name] and name not in KEPT[profile]
    ]
    assert not differences, "\n".join(differences)
    assert KEPT[profile].keys() <= answers.keys()
    for name in KEPT[profile].keys() - {"iot burst 40 x 2000 B qos1"}:
        assert "Error" not in answers[name]


def test_a_component_finds_itself_as_on_a_real_core(probe: Probe, core: LocalCore, profile: str) -> None:
    recorded = record(profile)
    file = core.root / "work" / "test.Probe" / "about.json"
    about = json.loads(eventually(lambda: file.read_text() if file.exists() else "", what="the component's report"))
    root = {"java": "<root>", "lite": "/var/lib/greengrass"}[profile]
    assert about["cwd"].replace(str(core.root), root) == recorded["cwd"]
    assert about["setenv"] == recorded["setenv"]
    assert about["umask"] == recorded["umask"]
    assert about["stdin"].partition(":")[0] == recorded["stdin"].partition(":")[0]
    argv = [text.replace(str(core.root), root) for text in about["argv"]]
    assert [*argv[:-1], f"{profile.capitalize()}{argv[-1]}"] == recorded["argv"]
    # These two belong to the machines on which the records were made.
    theirs = set(recorded["env"]) - {"AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"}
    ours = {name for name in about["env"] if name.startswith(("AWS", "GG", "SVC")) and name not in os.environ}
    assert ours == theirs
    if profile == "java" and "through sudo" in core.note:
        user, group = core.note.split()[3].rstrip(",").split(":")
        expected = recorded["ppid"].replace("ggc_user", user).replace("ggc_group", group)
        assert about["ppid"].startswith(expected.partition("exec")[0])


def test_a_wrong_token(core: LocalCore, profile: str) -> None:
    with pytest.raises(Exception) as refused:
        Probe(str(core.socket), "nonsense", "Thing")
    assert type(refused.value).__name__ == record(profile)["connect with a wrong token"].partition("(")[0]


def _call(method: str, **fields: Any) -> Callable[[Probe], Any]:
    return lambda probe: getattr(probe.ipc, method)(**fields)


def _null_over_map(probe: Probe) -> Any:
    updated(probe, [], {"gone": {"x": 1, "y": 2}})
    subscription = Changes(probe, [])
    updated(probe, [], {"gone": None})
    subscription.operation.close()
    return [subscription.got, configured(probe, "gone").value]


def _future_leaf_then_root(probe: Probe) -> Any:
    updated(probe, [], {"soon": {"x": 1}})
    updated(probe, ["soon"], {"x": 2}, 3600)
    return updated(probe, [], {"later": 1})


_BOTH = model.PublishMessage(
    json_message=model.JsonMessage(message={}), binary_message=model.BinaryMessage(message=b"")
)
_NO_UUID = "InvalidArgumentsError(Invalid deploymentId format received. DeploymentId is a UUID)"
_NO_TOPIC = _call("publish_to_iot_core", topic_name="", qos="1", payload=b"")
_QOS_3 = _call("publish_to_iot_core", topic_name="probe/x", qos="3", payload=b"")
_TWO = _call("publish_to_topic", topic="probe/x", publish_message=_BOTH)
_TOO_OLD = "FailedUpdateConditionCheckError(Proposed timestamp is older than the config's latest modified timestamp)"
BELIEVED: dict[str, list[Believed]] = {
    "java": [
        ("iot publish to ''", _NO_TOPIC, "UnauthorizedError(Not Authorized)"),
        ("publish both members", _TWO, "StreamClosedError()"),
        ("GetLocalDeploymentStatus x", _call("get_local_deployment_status", deployment_id="x"), _NO_UUID),
        ("CancelLocalDeployment x", _call("cancel_local_deployment", deployment_id="x"), _NO_UUID),
        ("CreateDebugPassword", _call("create_debug_password"), f"{_DENIED}CreateDebugPassword on resource *)"),
        ("UpdateState FINISHED", _call("update_state", state="FINISHED"), "ServiceError(Cannot invoke "),
        ("update null over map", _null_over_map, '[[["test.Probe", ["gone"]]], {"gone": null}]'),
        ("update after a future leaf", _future_leaf_then_root, _TOO_OLD),
    ],
    "lite": [
        ("publish both members", _TWO, "ServiceError()"),
        ("update null over map", _null_over_map, "ServiceError()"),
        ("iot publish qos 3", _QOS_3, "ServiceError()"),
        ("UpdateState FINISHED", _call("update_state", state="FINISHED"), "ServiceError()"),
    ],
}


def test_beliefs(probe: Probe, profile: str, record_property: Callable[[str, object], None]) -> None:
    """What was seen on real cores, or read in their source, and is in no record yet; the run's summary lists it."""
    for name, operation, expected in BELIEVED[profile]:
        assert probe.ask(operation).startswith(expected), name
    unrecorded = [name for name, _ in operations() if name not in record(profile)]
    names = ", ".join([*(name for name, *_ in BELIEVED[profile]), *unrecorded])
    record_property("believed", f"in no record of {PROFILES[profile]}: {names}")
