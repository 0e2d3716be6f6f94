"""Tables of numbers as people save them."""

import os
from pathlib import Path

import pytest

from edgeml.errors import BackendError
from inferencer import separated
from inferencer.sources.caller import rows

EXCEL = "L\u00e4nge;Breite;Ziel\r\n1,5;2;3\r\n\r\n4;5,25;6\r\n"
TABLES = {
    "as Excel saves UTF-8": b"\xef\xbb\xbf" + EXCEL.encode(),
    "as Excel saves Unicode": EXCEL.replace(";", "\t").encode("utf-16"),
    "with the separator told": b"sep=;\r\n" + EXCEL.encode(),
    "ends of lines of old Macs": EXCEL.replace("\r\n", "\r").encode(),
    "a separator at the end": EXCEL.replace("\r\n", ";\r\n").encode(),
    "quoted": EXCEL.replace("1,5", '"1,5"').replace("Breite", '"Breite"').encode(),
    "English": b"L\xc3\xa4nge,Breite,Ziel\n1.5,2,3\n4,5.25,6",
    "English, by semicolons": EXCEL.replace(",", ".").encode(),
    "blanks": b"L\xc3\xa4nge, Breite ,Ziel\n 1.5 ,2, 3\n4,5.25,6\n  \n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_as_people_save_them(tmp_path: Path, kind: str) -> None:
    (tmp_path / "t.csv").write_bytes(TABLES[kind])
    found = rows(tmp_path / "t.csv", "Ziel")
    assert next(found) == ({"L\u00e4nge": 1.5, "Breite": 2}, 3)
    assert next(found) == ({"L\u00e4nge": 4, "Breite": 5.25}, 6)
    assert next(found)[1] == 3  # and round again


BAD_TABLES = {
    "nothing": (b"", "no header"),
    "blank": (b"\n\n", "no header"),
    "no rows": (b"a,b\n", "no rows"),
    "a longer row": (b"a,b\n1,2\n1,2,3\n", "line 3: 3 values, the header names 2"),
    "a shorter row": (b"a;b\n1\n", "line 2: 1 values, the header names 2"),
    "decimal commas between commas": (b"a,b\n1,5,2,5\n", "line 2: 4 values, the header names 2"),
    "words": (b"a,b\n1,x\n", "line 2: expected numbers: 'x'"),
    "holes": (b"a,b\n1,\n", "line 2: expected numbers: ''"),
    "nan": (b"a,b\n1,nan\n", "'nan' is no number"),
    "infinite": (b"a,b\n1,1e999\n", "'1e999' is no number"),
    "underscores": (b"a,b\n1,1_000\n", "'1_000' is no number"),
    "digits of other scripts": ("a,b\n1,\u0663\n".encode(), "is no number"),
    "both decimal marks": (b"a;b\n1.234,5;2\n", "found commas and points"),
    "both in the file": (b"a;b\n1,5;2.5\n", "found commas and points"),
    "two of a name": (b"a,a\n1,2\n", "two columns are named 'a'"),
    "no name": (b"a,,b\n1,2,3\n", "column 2 has no name"),
    "ANSI": (b"L\xe4nge;b\n1;2\n", "save it as UTF-8"),
    "NULs": (b"a,b\n1,\x002\n", "there is a NUL in it"),
    "a quote without end": (b'a,b\n"1,2\n', "line 2: 1 values"),
    "another separator": (b"sep=|\na|b\n1|2\n", "separated by '|'"),
    "another paragraph mark": ("a,b\u20281,2".encode(), "no rows"),
    "a field beyond sense": (b"a,b\n" + b"1" * 200_000 + b",2\n", "line 2: field larger"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_table_that_cannot_be_read_says_where(tmp_path: Path, fault: str) -> None:
    content, words = BAD_TABLES[fault]
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BackendError) as caught:
        rows(tmp_path / "t.csv", "")
    assert words in str(caught.value)


def test_a_table_that_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BackendError, match="not a regular file"):
        rows(tmp_path / "pipe", "")
    monkeypatch.setattr(separated, "MAX_BYTES", 10)
    (tmp_path / "t.csv").write_bytes(b"a,b\n" * 10)
    with pytest.raises(BackendError, match="more than 10 bytes"):
        rows(tmp_path / "t.csv", "")
