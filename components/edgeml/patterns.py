"""Regular expressions that users write."""

import sys

_NEWER = ("unknown extension ?>", "multiple repeat")  # what Python 3.10 says of them


def reason(error: Exception) -> str:
    """Why `re` did not compile an expression, in words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if sys.version_info < (3, 11) and str(error).startswith(_NEWER):
        return f"{error}: atomic groups (?>a) and possessive repetitions as a++ need Python 3.11, expected others"
    return str(error)
