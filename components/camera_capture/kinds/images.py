"""A folder of pictures as a camera."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from camera_capture.camera import LocatedCamera
from camera_capture.source import Source, translated
from edgeml import pictures, redact
from edgeml.errors import PictureError, SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class ImagesCamera(LocatedCamera, frozen=True, kw_only=True, tag="images"):
    location: Annotated[str | int, Meta(description="images: folder")] = "0"
    loop: Annotated[bool, Meta(description="images: begin again at the end instead of stopping there")] = True

    def open(self) -> "Images":
        """Raises SourceError."""
        return Images(self)


class Images(Source):
    """The pictures of a folder in the order of their names. Unreadable ones are passed over, and told of."""

    fps = 1.0

    def __init__(self, camera: ImagesCamera) -> None:
        self._camera = camera
        where = camera.place()
        self._folder, self._shown = Path(where), redact.location(where)
        if not self._folder.is_dir():
            raise SourceError(f"{self._shown}: no such folder")
        self._loop = camera.loop
        self._files = self._listed()
        self._image: Image | None = None
        self.unreadable: set[Path] = set()  # in this round
        self._some_bad = False

    def _listed(self) -> Iterator[Path]:
        with translated(self._camera.where):
            return iter(sorted(p for p in self._folder.iterdir() if p.suffix.lower() in PICTURES))

    def grab(self) -> bool:
        if self._next():
            return True
        if not self._loop:
            if self._image is None:
                raise self._nothing()
            return False
        if not self._some_bad:
            self.trouble = ""
        self._some_bad = False
        self.unreadable.clear()
        self._files = self._listed()
        if self._next():
            return True
        raise self._nothing()

    def _next(self) -> bool:
        """Load the next picture that can be."""
        for path in self._files:
            try:
                self._image = pictures.load(path)
            except PictureError as error:
                self.unreadable.add(path)
                self.passed += 1
                if not self._some_bad:  # one for all, and the same one in each round
                    self.trouble = f"passed over: {error}"
                self._some_bad = True
                continue
            return True
        return False

    def _nothing(self) -> SourceError:
        why = f"; {self.trouble}" if self.trouble else ""
        return SourceError(f"{self._shown}: no readable picture ({', '.join(sorted(PICTURES))}){why}")

    def retrieve(self) -> "Image":
        if self._image is None:
            raise SourceError(f"{self._shown}: nothing was grabbed")
        return self._image

    def close(self) -> None:
        self._image = None
