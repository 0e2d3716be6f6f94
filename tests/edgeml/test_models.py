"""Bundles made here of a real, tiny ONNX model."""

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml import models
from edgeml.errors import BundleError, ProviderError


def bundle(folder: Path, version: str = "1.0.0", **changes: Any) -> Path:
    """A bundle whose model multiplies a [1, 3, 4, 4] image by two (or by `factor`)."""
    folder.mkdir(parents=True, exist_ok=True)
    shape: list[int | str] = [1, 3, 4, 4]
    factor = helper.make_tensor("factor", TensorProto.FLOAT, [1], [changes.pop("factor", 2.0)])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "factor"], ["twice"])],
        "double",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("twice", TensorProto.FLOAT, shape)],
        [factor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    manifest = {
        "name": "Double",
        "version": version,
        "task": "classification",
        "sha256": models.sha256(folder / "model.onnx"),
        "input": {"name": "image", "size": [4, 4]},
        "output": {"decoder": "softmax", "shapes": {"twice": [1, 3, 4, 4]}},
        "labels": ["a", "b"],
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


def test_a_bundle_loads_runs_and_is_probed(tmp_path: Path) -> None:
    loaded = models.load(bundle(tmp_path / "b"))
    assert (loaded.ref.name, loaded.ref.version, loaded.labels) == ("Double", "1.0.0", ("a", "b"))
    session = models.open_session(loaded, threads=1)
    models.probe(session, loaded)
    (twice,) = session.run(None, {"image": np.ones((1, 3, 4, 4), np.float32)})
    assert twice.max() == 2.0


def test_sessions_that_share_memory_answer_at_once_each_for_itself(tmp_path: Path) -> None:
    factors = range(2, 6)
    loaded = [models.load(bundle(tmp_path / str(factor), factor=float(factor))) for factor in factors]
    sessions = [models.open_session(each, threads=1) for each in loaded]
    with ThreadPoolExecutor(len(sessions)) as threads:
        tensor = np.ones((1, 3, 4, 4), np.float32)
        for _ in range(50):
            answers = list(threads.map(lambda session: session.run(None, {"image": tensor})[0], sessions))
            models.give_back()
            assert [answer.min() for answer in answers] == [answer.max() for answer in answers] == [*factors]


def test_the_run_after_the_end_of_a_session_gives_back_what_that_needed(tmp_path: Path) -> None:
    loaded = models.load(bundle(tmp_path / "b"))
    kept, ended = models.open_session(loaded), models.open_session(loaded)
    models.shrinking()  # of tests before
    assert models.shrinking() is None
    del ended
    gc.collect()
    options = models.shrinking()
    assert options is not None
    assert kept.run(None, {"image": np.ones((1, 3, 4, 4), np.float32)}, options)[0].max() == 2.0
    assert models.shrinking() is None


def test_a_changed_model_is_refused_with_both_digests(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b")
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx: sha256 is [0-9a-f]{64}, model\.json says [0-9a-f]{64}"):
        models.load(folder)


def test_a_corrupt_model_is_refused_by_name(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b")
    (folder / "model.onnx").write_bytes(b"not a model at all")
    manifest = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**manifest, "sha256": models.sha256(folder / "model.onnx")}))
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        models.open_session(models.load(folder))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "divination"}, "Invalid enum value 'divination' - at `$.task`"),
        ({"task": "divination"}, "expected one of anomaly, classification, detection, regression"),
        ({"input": {"name": "x", "layout": "nhwc"}}, "at `$.input.layout`, expected NCHW or NHWC or tensor"),
        ({"sha256": "abc"}, "sha256"),
        ({"version": "newest"}, "version 'newest' is neither a number nor semantic"),
        ({"files": {"labels.txt": "0" * 64}}, "labels.txt: No such file or directory"),
        ({"files": {"../secret": "0" * 64}}, "lies outside the bundle"),
        ({"files": {"a\0b": "0" * 64}}, "lies outside the bundle"),
        ({"files": {"long" * 100: "0" * 64}}, "File name too long"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BundleError) as caught:
        models.load(bundle(tmp_path / "b", **changes))
    assert words in str(caught.value)


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(b"caf\xe9\n")
    files = {"labels.txt": models.sha256(tmp_path / "labels.txt")}
    with pytest.raises(BundleError, match=r"labels\.txt: .*can't decode"):
        models.load(bundle(tmp_path, labels=[], files=files))


def test_an_absent_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere/model\.json: No such file or directory"):
        models.load(tmp_path / "nowhere")


def test_a_probe_refuses_what_is_not_finite_or_of_another_shape(tmp_path: Path) -> None:
    infinite = models.load(bundle(tmp_path / "inf", factor=float("inf")))  # 0 * inf is not a number
    with pytest.raises(BundleError, match="output twice is not finite"):
        models.probe(models.open_session(infinite), infinite)
    other = models.load(bundle(tmp_path / "shape", output={"decoder": "softmax", "shapes": {"twice": [1, 10]}}))
    with pytest.raises(BundleError, match=r"output twice has shape \(1, 3, 4, 4\), expected \[1, 10\]"):
        models.probe(models.open_session(other), other)


def test_a_wrong_input_name_lists_those_there_are(tmp_path: Path) -> None:
    wrong = models.load(bundle(tmp_path / "b", input={"name": "picture", "size": [4, 4]}))
    with pytest.raises(BundleError, match="no input 'picture', it has image"):
        models.open_session(wrong)


def test_a_missing_provider_lists_those_present(tmp_path: Path) -> None:
    with pytest.raises(
        ProviderError, match=r"CUDAExecutionProvider is not in this ONNX Runtime, present are .*CPUExec"
    ):
        models.open_session(models.load(bundle(tmp_path / "b")), providers=["CUDAExecutionProvider"])


def test_arrays_are_declared_and_never_objects(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    np.save(folder / "mean.npy", np.arange(3.0))
    np.save(folder / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    files = {name: models.sha256(folder / name) for name in ("mean.npy", "evil.npy")}
    loaded = models.load(bundle(folder, files=files))
    assert loaded.array("mean.npy").tolist() == [0.0, 1.0, 2.0]
    with pytest.raises(BundleError, match="evil"):
        loaded.array("evil.npy")
    with pytest.raises(BundleError, match="not declared"):
        loaded.array("other.npy")


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1", "2"), ("9", "10"), ("1.9.0", "1.10.0"), ("1.0.0-rc.1", "1.0.0"), ("1.0", "1.0.1"), ("v1", "1.1")],
)
def test_versions_compare_number_by_number(older: str, newer: str) -> None:
    assert models.version_key(older) < models.version_key(newer)


def test_pre_releases_compare_as_semver_says() -> None:
    ordered = "1.0.0-1 1.0.0-2 1.0.0-10 1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta 1.0.0-beta.2"
    ordered += " 1.0.0-beta.11 1.0.0-rc.1 1.0.0-rc.2 1.0.0-rc-3 1.0.0 1.0.1-a"
    versions = ordered.split()
    backwards = versions[::-1]
    assert sorted(backwards, key=models.version_key) == versions
    assert len({models.version_key(version) for version in versions}) == len(versions)
    assert models.version_key("1.0.0-rc.1+build.7") == models.version_key("1.0.0-rc.1+8")
    assert models.version_key("7") == models.version_key("v7.0.0") > models.version_key("7-rc.1")


@pytest.mark.parametrize(
    "version", ["", "latest", "1.0.0-", "1.0.0-a..b", "1.0.0-rc_1", "1.²", "1\n", "9" * 65, "1.2.3.4.5"]
)
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(BundleError, match="neither a number nor semantic"):
        models.version_key(version)


def test_the_newest_installed_bundle_is_found_and_an_update_wins(tmp_path: Path) -> None:
    assert models.find("Double", tmp_path) is None
    component = linked(models.component_folder(tmp_path, "Double"), bundle(tmp_path / "c", "1.2.0"))
    assert models.find("Double", tmp_path) == component
    update = linked(models.updater_folder(tmp_path, "Double"), bundle(tmp_path / "u", "1.2.0"))
    assert models.find("Double", tmp_path) == update
    linked(models.component_folder(tmp_path, "Double"), bundle(tmp_path / "c2", "1.10.0"))
    assert models.find("Double", tmp_path) == (tmp_path / "c2").resolve()
    linked(models.updater_folder(tmp_path, "Double"), bundle(tmp_path / "u2", "2.0.0-rc.1"))
    linked(models.component_folder(tmp_path, "Double"), bundle(tmp_path / "c3", "2.0.0-rc.2"))
    assert models.find("Double", tmp_path) == (tmp_path / "c3").resolve()


def test_a_watcher_tells_each_change_once(tmp_path: Path) -> None:
    watcher = models.Watcher("Double", tmp_path)
    assert watcher.changed() is None
    first = linked(models.component_folder(tmp_path, "Double"), bundle(tmp_path / "one"))
    assert watcher.changed() == first
    assert watcher.changed() is None
    second = linked(models.component_folder(tmp_path, "Double"), bundle(tmp_path / "two", "1.0.1"))
    assert watcher.changed() == second


def test_a_bundle_that_was_read_half_copied_is_offered_again_when_it_is_whole(tmp_path: Path) -> None:
    watcher = models.Watcher("Double", tmp_path, tmp_path / "b")
    folder = bundle(tmp_path / "b")
    whole = (folder / "model.json").read_bytes()
    (folder / "model.json").write_bytes(b"")
    assert watcher.changed() == folder
    (folder / "model.json").write_bytes(whole)  # while the empty one is found to be no JSON
    watcher.refuse(folder)
    assert watcher.changed() == folder
    watcher.refuse(folder)
    assert watcher.changed() is None


def test_a_refused_bundle_gives_way_and_is_offered_again_when_it_changes(tmp_path: Path) -> None:
    watcher = models.Watcher("Double", tmp_path)
    old = linked(models.component_folder(tmp_path, "Double"), bundle(tmp_path / "old", "1.0.0"))
    new = linked(models.updater_folder(tmp_path, "Double"), bundle(tmp_path / "new", "2.0.0"))
    assert watcher.changed() == new
    watcher.refuse(new)
    assert watcher.changed() == old
    assert watcher.changed() is None
    bundle(tmp_path / "new", "2.0.0", factor=3.0)
    assert watcher.changed() == new


def linked(place: Path, target: Path) -> Path:
    """Switch the link `place` to `target` in one step, as components and the updater do."""
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name("next")
    new.symlink_to(target)
    new.replace(place)
    return target.resolve()
