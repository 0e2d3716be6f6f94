"""Text as people's programs write it: byte order marks, UTF-16, three kinds of line ends."""

import codecs

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def decoded(data: bytes) -> str:
    """UTF-8, or what a byte order mark says, without the mark. Raises ValueError, for a NUL in it as well."""
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    text = data[len(mark) :].decode(encoding)
    if "\0" in text:
        raise ValueError("there is a NUL in it: UTF-8 is expected, or a byte order mark")
    return text


def lines(data: bytes) -> list[str]:
    """Lines that end with LF, CR LF or CR alone, and with nothing else. Raises ValueError as `decoded`."""
    found = decoded(data).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return found[:-1] if found[-1] == "" else found
