"""The picture that the component ships: a cup of coffee, from scikit-image's free test pictures."""

from pathlib import Path

from bundles.fetch import SCIKIT_IMAGE, member


def build(out: Path) -> None:
    """Adds the picture, public domain (CC0, Rachel Michetti), to the staged package. Raises FetchError."""
    folder = out / "sample_requester" / "pictures"
    folder.mkdir(parents=True)
    (folder / "coffee.png").write_bytes(member(SCIKIT_IMAGE, "skimage/data/coffee.png"))
