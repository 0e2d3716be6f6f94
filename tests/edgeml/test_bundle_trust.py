"""What a bundle holds is what was hashed; whatever else lies in its folder is refused and not waited for."""

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bundle_support import described, digest, made, refused
from edgeml import bundle, models, onnx_file
from edgeml.errors import BundleError


def test_declared_weights_are_loaded_from_the_bytes_that_were_hashed(tmp_path: Path) -> None:
    folder = made(tmp_path / "b", weights="w.bin")
    bundle = models.load(described(folder, files={"w.bin": models.sha256(folder / "w.bin")}))
    assert bundle.graph.external == {"w.bin"}
    (out,) = models.open_session(bundle).run(None, {"image": np.zeros((1, 3, 4, 4), np.float32)})
    assert out.max() == 2
    (folder / "w.bin").write_bytes(b"\0\0\0\0")  # after `load` and before the session
    with pytest.raises(BundleError, match=r"w\.bin: sha256 is"):
        models.open_session(bundle)


def test_a_session_keeps_no_copy_of_what_it_was_loaded_from(tmp_path: Path) -> None:
    folder = made(tmp_path / "b", weights="w.bin")
    bundle = models.load(described(folder, files={"w.bin": models.sha256(folder / "w.bin")}))
    contents = [bundle.model.read_bytes(), (folder / "w.bin").read_bytes()]
    session = models.open_session(bundle)
    assert not [name for name, value in vars(session).items() if value in contents]
    assert session.run(None, {"image": np.zeros((1, 3, 4, 4), np.float32)})


@pytest.mark.parametrize("place", ["w.bin", "../w.bin", "/etc/passwd", "sub/w.bin", "*/_ORT_MEM_ADDR_/*"])
def test_undeclared_weights_are_refused_wherever_they_lie(tmp_path: Path, place: str) -> None:
    folder = made(tmp_path / "b", weights=place)
    assert f"weights in {place!r}, which is not declared" in refused(folder)


@pytest.mark.parametrize("place", ["../w.bin", "/etc/passwd", "sub/w.bin"])
def test_declaring_weights_elsewhere_does_not_help(tmp_path: Path, place: str) -> None:
    (tmp_path / "w.bin").write_bytes(b"1234")
    folder = made(tmp_path / "b", weights=place)
    assert "lies outside the bundle" in refused(described(folder, files={place: digest(b"1234")}))


def test_weights_are_found_however_deep_they_lie(tmp_path: Path) -> None:
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="deep.bin")
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    for _ in range(15):
        inner = helper.make_graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    assert onnx_file.read(helper.make_model(inner).SerializeToString()).external == {"deep.bin"}
    sparse = onnx.SparseTensorProto(values=tensor, indices=TensorProto())
    graph = helper.make_graph([], "g", [], [], sparse_initializer=[sparse])
    assert onnx_file.read(helper.make_model(graph).SerializeToString()).external == {"deep.bin"}
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    function = helper.make_function("d", "f", [], ["c"], [node], [helper.make_opsetid("", 14)])
    model = helper.make_model(helper.make_graph([], "g", [], []), functions=[function])
    assert onnx_file.read(model.SerializeToString()).external == {"deep.bin"}


def test_what_computes_an_output_is_told_past_reshapes(tmp_path: Path) -> None:
    for end in ("Softmax", "Sigmoid", "Identity"):
        assert models.load(made(tmp_path / end, end=end)).graph.ends == {"out": end if end != "Identity" else "Add"}
    nodes = [helper.make_node("Softmax", ["x"], ["a"]), helper.make_node("Cast", ["a"], ["b"], to=1)]
    nodes.append(helper.make_node("Flatten", ["b"], ["out"]))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [], [out])
    assert onnx_file.read(helper.make_model(graph).SerializeToString()).ends == {"out": "Softmax"}


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_model_are_said_to_be_none(data: bytes) -> None:
    with contextlib.suppress(onnx_file.NotOnnxError):
        onnx_file.read(data)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_model_is_read_or_said_to_be_none(place: int, value: int) -> None:
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["out"])], "g", [], [out])
    data = bytearray(helper.make_model(graph).SerializeToString())
    data[place % len(data)] = value
    with contextlib.suppress(onnx_file.NotOnnxError):
        onnx_file.read(bytes(data))


def test_a_model_that_is_exchanged_between_hash_and_load_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "b")
    bundle = models.load(folder)
    made(tmp_path / "other", end="Sigmoid")
    (folder / "model.onnx").write_bytes((tmp_path / "other" / "model.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"model\.onnx: sha256 is"):
        models.open_session(bundle)


def test_an_array_that_is_exchanged_after_the_load_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "b")
    np.save(folder / "mean.npy", np.zeros(3))
    bundle = models.load(described(folder, files={"mean.npy": models.sha256(folder / "mean.npy")}))
    np.save(folder / "mean.npy", np.ones(3))
    with pytest.raises(BundleError, match=r"mean\.npy: sha256 is"):
        bundle.array("mean.npy")


def test_the_model_cannot_be_declared_twice(tmp_path: Path) -> None:
    folder = made(tmp_path / "b")
    true = models.sha256(folder / "model.onnx")
    assert "sha256 is" in refused(described(folder, sha256="0" * 64, files={"model.onnx": true}))
    assert "sha256 is" in refused(described(folder, files={"model.onnx": "0" * 64}))


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


ODD: dict[str, Callable[[Path], Any]] = {
    "pipe": _fifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path),
    "elsewhere": lambda path: path.symlink_to("/etc/hostname"),
}


@pytest.mark.parametrize("name", ["model.onnx", "model.json", "labels.txt"])
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    folder = made(tmp_path / "b", files={"labels.txt": "0" * 64})
    (folder / name).unlink(missing_ok=True)
    monkeypatch.chdir(folder)  # a socket's path has few characters
    ODD[kind](Path(name))
    assert name in refused(folder)


def test_every_file_has_a_limit_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "b")
    (folder / "labels.txt").write_text("a\n" * 50)
    np.save(folder / "mean.npy", np.zeros(300))
    described(folder, files={name: models.sha256(folder / name) for name in ("labels.txt", "mean.npy")})
    for limit, words in (("MAX_MODEL_BYTES", "model.onnx"), ("MAX_LABELS_BYTES", "labels.txt")):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, limit, 60)
            assert f"{words}: more than 60 bytes" in refused(folder)
    for limit in ("MAX_MANIFEST_BYTES", "MAX_FILE_BYTES", "MAX_FILES"):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, limit, 1)
            assert "1 " in refused(folder)
    monkeypatch.setattr(bundle, "MAX_ARRAY_BYTES", 1000)
    with pytest.raises(BundleError, match=r"mean\.npy: more than 1000 bytes"):
        models.load(folder).array("mean.npy")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"name":' * 3000, "more than 64 deep"),
        (b'{"name": "A", "name": "B"}', "'name' occurs twice"),
        (b'{"thresholds": {"score": NaN}}', "NaN is no finite number"),
        (b'{"thresholds": {"score": 1e999}}', "1e999 is no finite number"),
        (b'{"name": "\\ud800"}', "surrogates not allowed"),
        (b"\xff\xfe{}", "can't decode"),
        (b"[]", "Expected `object`"),
    ],
)
def test_a_manifest_that_trips_readers_is_refused_in_words(tmp_path: Path, content: bytes, words: str) -> None:
    folder = made(tmp_path / "b")
    (folder / "model.json").write_bytes(content)
    assert words in refused(folder)


def test_a_manifest_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    folder = made(tmp_path / "b")
    (folder / "model.json").write_bytes(b"\xef\xbb\xbf" + (folder / "model.json").read_bytes())
    assert models.load(folder).ref.name == "Double"


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"\xef\xbb\xbfcat\ndog\n", ("cat", "dog")),
        (b"cat\r\ndog", ("cat", "dog")),
        (b"cat\rdog\r", ("cat", "dog")),
        ("cat\u2028tle\ndog\x0b\x85\n".encode(), ("cat\u2028tle", "dog")),
        (b"cat \n dog\n\n\n", ("cat", "dog")),
        (b"cat\n\ndog\n", ("cat", "", "dog")),
        ("cat\ndog\n".encode("utf-16"), ("cat", "dog")),
        (b"", ()),
    ],
)
def test_labels_as_people_write_them(tmp_path: Path, content: bytes, labels: tuple[str, ...]) -> None:
    folder = made(tmp_path / "b", files={"labels.txt": digest(content)})
    (folder / "labels.txt").write_bytes(content)
    assert models.load(folder).labels == labels


def test_labels_with_a_nul_are_refused(tmp_path: Path) -> None:
    content = "cat\n".encode("utf-16-le")  # without a mark
    folder = made(tmp_path / "b", files={"labels.txt": digest(content)})
    (folder / "labels.txt").write_bytes(content)
    assert "there is a NUL in it" in refused(folder)
