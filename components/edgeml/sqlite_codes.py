"""What an error of SQLite is, by its result code: https://sqlite.org/rescode.html."""

import sqlite3

# Python names them since 3.11.
ERROR, BUSY, READONLY, IOERR, CORRUPT, FULL, NOTADB = 1, 5, 8, 10, 11, 13, 26
IOERR_READ, IOERR_SHORT_READ, IOERR_WRITE, IOERR_CORRUPTFS = 266, 522, 778, 8458
_TEXTS = {
    "attempt to write a readonly database": READONLY,
    "database is locked": BUSY,
    "database or disk is full": FULL,
    "disk I/O error": IOERR,
}


def result_code(error: BaseException | None) -> int:
    """The extended code; 0 of what is no error of SQLite.

    Python 3.10 tells none: there the class and the text of an error tell a primary code, and nothing tells whether an
    IOERR was one in reading or in writing.
    """
    if not isinstance(error, sqlite3.Error):
        return 0
    told: int | None = getattr(error, "sqlite_errorcode", None)
    if told is not None:
        return told
    if type(error) is sqlite3.DatabaseError:  # CORRUPT or NOTADB, which mean the same here
        return CORRUPT
    return next((code for text, code in _TEXTS.items() if str(error) == text), ERROR)
