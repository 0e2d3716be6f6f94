import contextlib
import gzip
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from model_updater.archive import MAX_FILES, MAX_HEADER, MAX_HEADERS, MAX_LIST, unpack
from model_updater.errors import UpdateError
from ota_support import tarred, zipped

LIMIT = 1 << 20


def unpacked(content: bytes, folder: Path, limit: int = LIMIT) -> dict[str, bytes]:
    artifact = folder / "artifact"
    artifact.write_bytes(content)
    unpack(artifact, folder / "out", limit)
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def tar_with(*entries: tarfile.TarInfo, content: bytes = b"") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for entry in entries:
            entry.size = len(content) if entry.isreg() else 0
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_files_come_out_as_they_went_in(pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    files = {"model.onnx": bytes(range(256)) * 1000, "model.json": b"{}", "labels.txt": b""}
    assert unpacked(pack(files), tmp_path) == files


def test_a_tar_of_the_current_folder_is_accepted(tmp_path: Path) -> None:
    content = tar_with(entry(".", tarfile.DIRTYPE), entry("./model.json"), content=b"{}")
    assert unpacked(content, tmp_path) == {"model.json": b"{}"}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../evil", "a/../../evil", "folder/file", "..", "C:\\evil", "a\\..\\b"]
)
@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_path_is_refused(pack: Callable[[dict[str, bytes]], bytes], name: str, tmp_path: Path) -> None:
    before = set(tmp_path.parent.iterdir())
    with pytest.raises(UpdateError, match="plain file names"):
        unpacked(pack({name: b"x"}), tmp_path)
    assert list((tmp_path / "out").iterdir()) == []
    assert set(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_links_devices_and_folders_are_refused(kind: bytes, tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="no regular file"):
        unpacked(tar_with(entry("model.onnx", kind, "/etc/passwd")), tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("model.onnx")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UpdateError, match="no regular file"):
        unpacked(file.getvalue(), tmp_path)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_name_twice_is_refused(pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="twice"):
        unpacked(pack({"./model.onnx": b"1", "model.onnx": b"2"}), tmp_path)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    ("sizes", "fits"), [((0, 0), True), ((500, 499), True), ((500, 500), True), ((500, 501), False)]
)
def test_bytes_are_bounded(
    pack: Callable[[dict[str, bytes]], bytes], sizes: tuple[int, int], fits: bool, tmp_path: Path
) -> None:
    files = {f"f{number}": b"x" * size for number, size in enumerate(sizes)}
    if fits:
        assert unpacked(pack(files), tmp_path, 1000) == files
    else:
        with pytest.raises(UpdateError, match="more than"):
            unpacked(pack(files), tmp_path, 1000)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize(
    ("count", "fits"), [(1, True), (MAX_FILES - 1, True), (MAX_FILES, True), (MAX_FILES + 1, False)]
)
def test_files_are_bounded(pack: Callable[[dict[str, bytes]], bytes], count: int, fits: bool, tmp_path: Path) -> None:
    files = {f"f{number}": b"" for number in range(count)}
    if fits:
        assert unpacked(pack(files), tmp_path) == files
    else:
        with pytest.raises(UpdateError, match="more than 64 files"):
            unpacked(pack(files), tmp_path)


def test_a_zip_that_lies_about_its_size_is_stopped_at_the_limit(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.onnx", b"\0" * 5_000_000)
    content = file.getvalue().replace((5_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(UpdateError):
        unpacked(content, tmp_path, 1000)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 1000


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_that_inflates_without_end_is_stopped(kind: bytes, tmp_path: Path) -> None:
    """Also where the endless part is a header, which tarfile reads into memory as a whole."""
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = kind, 300_000_000
    content = gzip.compress(huge.tobuf() + b"\0" * 3_000_000, compresslevel=1)
    with pytest.raises(UpdateError):
        unpacked(content, tmp_path)


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_a_damaged_or_foreign_archive_is_an_update_error(
    pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path
) -> None:
    good = pack({"model.onnx": bytes(range(256)) * 40})
    for number, content in enumerate(
        [good[: len(good) // 2], good[:40] + b"\xff" * 40 + good[80:], b"PK\x03\x04", b"\x1f\x8b", b"", b"hello"]
    ):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(UpdateError):
            unpacked(content, tmp_path / str(number))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_header_that_is_itself_huge_is_refused_before_it_is_read(kind: bytes, tmp_path: Path) -> None:
    header = entry("././@LongLink", kind)
    header.size = MAX_HEADER + 1
    content = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"a" * (MAX_HEADER + 512))
    with pytest.raises(UpdateError, match=f"a header of {MAX_HEADER + 1} bytes, {MAX_HEADER} are allowed"):
        unpacked(content, tmp_path)


def test_headers_on_headers_end(tmp_path: Path) -> None:
    header = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 1
    content = gzip.compress((header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 900)
    with pytest.raises(UpdateError, match=r"damaged|more bytes than are allowed|more than \d+ headers"):
        unpacked(content, tmp_path)


def test_a_name_of_ordinary_length_passes_whatever_the_format(tmp_path: Path) -> None:
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        file, name = io.BytesIO(), "n" * 200
        with tarfile.open(fileobj=file, mode="w:gz", format=form) as archive:
            archive.addfile(entry(name), io.BytesIO(b""))
        (tmp_path / str(number)).mkdir()
        assert unpacked(file.getvalue(), tmp_path / str(number)) == {name: b""}


def test_a_list_of_a_million_names_is_refused_before_it_is_read(tmp_path: Path) -> None:
    content = bytearray(zipped({"model.json": b"{}"}))
    end = content.rfind(b"PK\x05\x06")
    content[end + 12 : end + 16] = (MAX_LIST + 1).to_bytes(4, "little")
    with pytest.raises(UpdateError, match=f"list of files has {MAX_LIST + 1} bytes"):
        unpacked(bytes(content), tmp_path)


def test_zip64_is_refused_in_words(tmp_path: Path) -> None:
    content = zipped({"model.json": b"{}"})
    end = content.rfind(b"PK\x05\x06")
    locator = b"PK\x06\x07" + bytes(16)
    with pytest.raises(UpdateError, match=r"offer it as tar\.gz"):
        unpacked(content[:end] + locator + content[end:], tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_by_what_inflates_without_a_limit_is_refused(method: int, tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("model.onnx", bytes(1000))
    with pytest.raises(UpdateError, match=f"packed by method {method}: use deflate"):
        unpacked(file.getvalue(), tmp_path)


def raw_header(kind: bytes, size: int) -> bytes:
    made = entry("m", kind)
    made.size = size
    return made.tobuf(tarfile.GNU_FORMAT)


def pax(**fields: str) -> bytes:
    body = b""
    for name, value in fields.items():
        text = f" {name.replace('_', '.')}={value}\n"
        body += f"{len(text) + 2}{text}".encode()
    return raw_header(tarfile.XHDTYPE, len(body)) + body.ljust(-(-len(body) // 512) * 512, b"\0")


SPARSE: dict[str, bytes] = {
    "GNU's own, a map without end": raw_header(tarfile.GNUTYPE_SPARSE, 512)[:482] + b"\1" + bytes(29) + b"\1" * 9999,
    "pax 0.0": pax(GNU_sparse_size="9"),
    "pax 0.1": pax(GNU_sparse_map="0,9"),
    "pax 1.0, a number without end": pax(GNU_sparse_major="1", GNU_sparse_minor="0"),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_file_is_refused_before_its_map_is_read(kind: str, tmp_path: Path) -> None:
    start = bytearray(SPARSE[kind])
    if kind.startswith("GNU"):
        start[148:156] = b"        "
        start[148:156] = b"%06o\0 " % sum(start[:512])
    content = gzip.compress(bytes(start) + raw_header(tarfile.REGTYPE, 1 << 19) + b"1" * (1 << 19))
    with pytest.raises(UpdateError, match="sparse"):
        unpacked(content, tmp_path)


def test_headers_are_bounded_in_number_so_that_no_file_costs_more_than_moments(tmp_path: Path) -> None:
    digits = b"1" * MAX_HEADER  # tarfile looks at each of its digits from each of them
    content = gzip.compress((raw_header(tarfile.XGLTYPE, len(digits)) + digits) * 2)
    with pytest.raises(UpdateError, match="damaged"):
        unpacked(content, tmp_path)
    (tmp_path / "out").rmdir()
    names = pax(comment="x") * (MAX_HEADERS + 1)
    with pytest.raises(UpdateError, match=f"more than {MAX_HEADERS} headers"):
        unpacked(gzip.compress(names), tmp_path)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(100), gzip.compress(b"\xff" * 512 * 4, mtime=0)])
def test_what_zipfile_and_tarfile_stumble_over_is_a_damaged_artifact(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="damaged"):
        unpacked(content, tmp_path)


def test_any_damage_to_an_archive_is_an_error_in_words(tmp_path: Path) -> None:
    draw = random.Random(5)
    for number in range(300):
        content = bytearray((zipped, tarred)[number % 2]({"model.json": b"{}", "\xe9" * 60: b"x" * 99}))
        if number % 2:
            content = bytearray(gzip.decompress(content))
        for _ in range(draw.randint(1, 8)):
            content[draw.randrange(4, len(content))] = draw.choice((0, 0xFF, draw.randrange(256)))
        with contextlib.suppress(UpdateError, OSError):  # the step fails with either, in words
            folder = tmp_path / str(number)
            folder.mkdir()
            unpacked(gzip.compress(bytes(content), 1) if number % 2 else bytes(content), folder)
