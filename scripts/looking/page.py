"""A look as one HTML file that needs nothing else and runs nothing: all that a device says is text in it."""

import base64
import hashlib
import os
from html import escape
from pathlib import Path

from looking import LookError
from looking.answer import Look, entries, plain
from looking.text import moment, tables

STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td{padding:.2rem 1rem .2rem 0;vertical-align:top;overflow-wrap:anywhere}
figure{margin:0}.pictures{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(20rem,1fr))}
img{max-width:100%;border-radius:.4rem}.wrong{border-left:.3rem solid #c33;padding-left:.8rem}
"""


def html(look: Look) -> str:
    """The page. Scripts, frames and requests are forbidden in it."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"{look.thing}, {moment(look.report.get('at'))}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_problems(look),
        *_pictures(look),
    ]
    for name, rows in tables(look):
        cells = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
        parts += [f"<h2>{escape(name)}</h2><table>", *(f"<tr>{row}</tr>" for row in cells), "</table>"]
    return "\n".join([*parts, "</body></html>\n"])


def write(path: Path, look: Look) -> None:
    """For its owner alone: it may show people. Raises LookError."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="replace") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(html(look))
    except OSError as error:
        raise LookError(f"{path}: {error.strerror}") from error


def _problems(look: Look) -> list[str]:
    problems = entries(look.report, "problems")
    if not problems:
        return ["<p>Nothing needs attention.</p>"]
    found = []
    for item in problems:
        words = [plain(item.get(key, "")) for key in ("component", "code", "subject", "text")]
        head, text = escape(" ".join(words[:3])), escape(words[3])
        found.append(f'<p class="wrong"><b>{head}</b><br>{text}<br>since {escape(moment(item.get("since")))}</p>')
    return found


def _pictures(look: Look) -> list[str]:
    found = []
    for camera, jpeg in look.pictures.items():
        name, data = escape(camera), base64.b64encode(jpeg).decode()
        image = f'<img alt="{name}" src="data:image/jpeg;base64,{data}">'
        found.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
    return ['<div class="pictures">', *found, "</div>"] if found else []
