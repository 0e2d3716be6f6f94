"""export_onnx.py reads what others have packed: nothing unsafe, damaged, too large or nameless."""

import hashlib
import io
import json
import platform
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import packing
from edgeml.errors import EdgemlError
from export_support import archive, draft, unzipped
from ota_support import tarred, tiny_model


def spoilt(content: bytes) -> bytes:
    """An archive with one byte changed in the middle of its data."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def member(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        packed.addfile(entry, io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (member("../evil"), "only plain files"),
        (member("/etc/evil"), "only plain files"),
        (member("model.pth", tarfile.SYMTYPE), "only plain files"),
        (member("model.pth", tarfile.LNKTYPE), "only plain files"),
        (b"no archive", "damaged"),
        pytest.param(archive()[:100], "damaged", id="cut short"),
        pytest.param(spoilt(archive()), "damaged", id="spoilt"),
    ],
)
def test_an_archive_that_is_unsafe_or_damaged_is_refused(app: ModuleType, content: bytes, words: str) -> None:
    with pytest.raises(app.ExportError, match=words):
        app.read_archive(content)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.onnx": b"x"}, "the archive has no bundle.json"),
        ({"bundle.json": b"{"}, "bundle.json is not JSON: Expecting"),
        ({"bundle.json": b"[]"}, "bundle.json has no name"),
        ({"bundle.json": b'{"name": "A", "version": 1}'}, "bundle.json has no version"),
        ({"bundle.json": json.dumps(draft("newest")).encode()}, "newest"),
    ],
)
def test_an_archive_that_does_not_say_what_model_it_holds_is_refused(
    app: ModuleType, files: dict[str, bytes], words: str
) -> None:
    with pytest.raises((app.ExportError, EdgemlError), match=words):
        app.read_draft(files)


def test_an_archive_that_is_too_large_is_refused(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_UNPACKED_BYTES", 100_000)
    app.read_archive(archive())
    for content in (tarred({"model.onnx": bytes(100_001)}), member("name" * 50_000)):  # files and headers
        with pytest.raises(app.ExportError, match="unpacks to more than 100000 bytes"):
            app.read_archive(content)


@pytest.mark.parametrize(
    ("content", "digest", "words"),
    [
        (tiny_model(), "", ""),
        (tiny_model(), "0" * 64, "int8.onnx: sha256 is"),
        (b"no model", "", "int8.onnx: ONNX Runtime cannot load it"),
    ],
)
def test_an_archive_may_bring_variants_that_are_tried(
    app: ModuleType, tmp_path: Path, content: bytes, digest: str, words: str
) -> None:
    isa = "aarch64" if platform.machine() == "aarch64" else "x86_64"  # one that this machine has to try
    sha256 = digest or hashlib.sha256(content).hexdigest()
    variant = {"file": "int8.onnx", "sha256": sha256, "precision": "int8", "isa": isa, "accuracy": {"rmse": 0.1}}
    files = {"model.onnx": tiny_model(), "int8.onnx": content, **packing.samples(np.zeros((9, 4), np.float32))}
    files["bundle.json"] = json.dumps(draft(variants=[variant])).encode()
    if words:
        with pytest.raises(EdgemlError, match=words):
            app.bundled(files)
        return
    made = unzipped(app.bundled(files, 0.01).content, tmp_path)
    assert [variant.name for variant in made.manifest.variants] == [f"int8 {isa}"]
    assert not made.manifest.files


@pytest.mark.parametrize("variants", [5, ["int8.onnx"], [{"file": 1}], [{"file": []}]])
def test_variants_that_are_none_are_refused(app: ModuleType, variants: object) -> None:
    files = {"model.onnx": tiny_model(), "bundle.json": json.dumps(draft(variants=variants)).encode()}
    with pytest.raises(EdgemlError, match="variants"):
        app.bundled(files)
