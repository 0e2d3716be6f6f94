"""scripts/deploy: configuration that a device would refuse is refused here, before anything is done."""

from typing import Any

import pytest

import camera_capture
import inferencer
import log_shipper
from deploy_support import BUCKET, Field

CAMERAS = "edgeml.CameraCapture"


@pytest.fixture
def field(field: Field) -> Field:
    """Components of this tree's versions: others are only warned of."""
    field.build(CAMERAS, camera_capture.__version__)
    field.build("edgeml.Inferencer", inferencer.__version__)
    field.build("edgeml.LogShipper", log_shipper.__version__)
    return field


def untouched(field: Field) -> bool:
    return not field.ids() and "Contents" not in field.cloud.aws.client("s3").list_objects_v2(Bucket=BUCKET)


@pytest.mark.parametrize("dry", [["--dry-run"], ["--yes"]], ids=["dry", "real"])
@pytest.mark.parametrize(
    ("component", "values", "message"),
    [
        ("CameraCapture", {"cameras": {"a": {"fps": "fast"}}}, "cameras.a.fps: expected float"),
        ("CameraCapture", {"cameras": {"a": {"slots": 4.5}}}, "cameras.a.slots: expected int"),
        ("CameraCapture", {"cameras": {"a": {"slots": "1_0"}}}, "cameras.a.slots: expected int"),
        ("CameraCapture", {"cameras": {"a b": {}}}, "cameras.a b: expected str matching"),
        ("CameraCapture", {"spool_bytes": -1}, "spool_bytes: expected int >= 0"),
        ("LogShipper", {"retentionDays": 31}, "retentionDays: invalid enum value 31"),
    ],
    ids=["text", "half", "underscore", "name", "bound", "choice"],
)
def test_what_a_device_would_refuse_is_refused_first(
    field: Field,
    capsys: pytest.CaptureFixture[str],
    component: str,
    values: dict[str, Any],
    message: str,
    dry: list[str],
) -> None:
    assert field.deploy(*dry, "--config", field.config(**{component: values})) == 2
    assert f"edgeml.{component}: configuration {message}" in capsys.readouterr().err
    assert untouched(field)


@pytest.mark.parametrize(
    ("values", "pointer"),
    [({"pipelines": None}, "/pipelines"), ({"merge": {"pipelines": {"a/b": None}}}, "/pipelines/a~1b")],
    ids=["top", "below"],
)
def test_null_is_refused_and_the_reset_is_named(
    field: Field, capsys: pytest.CaptureFixture[str], values: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        field.deploy("--yes", "--config", field.config(Inferencer=values))
    assert ended.value.code == 2
    assert f'use "reset": ["{pointer}"]' in " ".join(capsys.readouterr().err.split())
    assert untouched(field)


def test_what_a_device_takes_is_deployed_and_misspelt_keys_are_told(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"cameras": {"a": {"slots": 8.0, "fps": "12.5", "fsp": 1}}}
    assert field.deploy("--yes", "--config", field.config(CameraCapture=values)) == 0
    assert "cameras.a.fsp is not known, did you mean fps?" in capsys.readouterr().err


def test_a_part_whose_rest_was_configured_elsewhere_is_no_error(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"pipelines": {"f": {"top_k": 3}}}
    assert field.deploy("--yes", "--config", field.config(Inferencer=values)) == 0
    assert "pipelines.f: object missing required field" in capsys.readouterr().err


def test_what_was_deployed_before_counts_and_another_version_is_only_warned_of(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    update = {"merge": '{"cameras": {"a": {"fps": "fast"}}}'}
    field.create({CAMERAS: {"componentVersion": camera_capture.__version__, "configurationUpdate": update}})
    assert field.deploy("--yes", "--component", CAMERAS) == 2
    field.build(CAMERAS, "9.0.0")
    capsys.readouterr()
    field.deploy("--dry-run", "--component", f"{CAMERAS}=9.0.0")
    assert f"version {camera_capture.__version__} of this tree would refuse it" in capsys.readouterr().err
