"""A look as text for a terminal."""

from collections.abc import Iterator
from datetime import UTC, datetime

from looking.answer import Look, entries, mapping, plain


def lines(look: Look) -> Iterator[str]:
    """What is wrong first, then all that is known."""
    report = look.report
    yield f"{look.thing}  {moment(report.get('at'))}  edgeml.Monitor {plain(report.get('version', '?'))}"
    problems = entries(report, "problems")
    yield "" if problems else "nothing needs attention"
    for problem in problems:
        component, code, subject, said = (
            plain(problem.get(key, "?")) for key in ("component", "code", "subject", "text")
        )
        yield f"! {component} {code} {subject}: {said}"
        yield f"    since {moment(problem.get('since'))}"
    for title, rows in tables(look):
        yield ""
        yield title
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        for row in rows:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def tables(look: Look) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """Title and rows, plain text each; none is empty."""
    report, state = look.report, look.state
    found: dict[str, list[tuple[str, ...]]] = {
        "Components": [
            (plain(name), plain(item.get("version", "")), plain(item.get("status", "")))
            for name, item in mapping(report, "components").items()
            if isinstance(item, dict)
        ],
        "Cameras": [
            (
                plain(item.get("name", "?")),
                "live" if item.get("live") else "no frames",
                f"{plain(item.get('fps', '?'))} frames/s",
                f"{plain(item.get('width', '?'))}x{plain(item.get('height', '?'))}",
            )
            for item in entries(state, "cameras")
        ],
        "Pipelines": [
            (
                plain(item.get("name", "?")),
                f"{plain(item.get('model', ''))} {plain(item.get('model_version', ''))}",
                f"{plain(item.get('fps', '?'))} results/s",
                plain(item.get("last", "")),
            )
            for item in entries(state, "pipelines")
        ],
        "Models": [
            tuple(plain(item.get(key, "")) for key in ("name", "version", "status", "reason"))
            for item in entries(state, "models")
        ],
        "Waiting to be sent, dropped, refused": _pairs(report, "spools"),
        "Device": _pairs(report, "vitals"),
        "Rates per second": _pairs(report, "rates"),
        "Left out, for want of room": _pairs(report, "left_out"),
        "Not there": [(plain(name), plain(reason)) for name, reason in look.missing.items()],
    }
    yield from ((title, rows) for title, rows in found.items() if rows)


def moment(value: object) -> str:
    """Unix time for people."""
    if not isinstance(value, int | float):
        return "?"
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "?"


def _pairs(report: dict[str, object], key: str) -> list[tuple[str, ...]]:
    return [(plain(name), plain(value)) for name, value in mapping(report, key).items()]
