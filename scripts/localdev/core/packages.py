"""Recipes and artifacts that a core holds: taking them over from local folders, and unpacking archives."""

import filecmp
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from localdev.core import recipe as recipes
from localdev.core.lite import refusals
from localdev.core.profiles import Profile
from localdev.core.recipe import Artifact, Recipe, RecipeError
from localdev.core.semver import Version, satisfies
from localdev.core.users import User, give
from localdev.core.variables import Paths

_COPY_BYTES = 1024 * 1024


class PackageStore:
    """Every recipe known by name and version, and the artifacts under `<root>/packages`."""

    def __init__(self, paths: Paths, profile: Profile) -> None:
        self._paths = paths
        self._profile = profile
        self._recipes: dict[str, dict[Version, Recipe]] = {}
        self._changed: set[tuple[str, str]] = set()

    def add_recipes(self, folder: Path) -> None:
        """Takes over every recipe below a folder. RecipeError names what the profile's core refuses."""
        target = self._paths.root / "packages" / "recipes"
        for path in sorted(path for path in folder.rglob("*") if path.suffix in recipes.SUFFIXES):
            document, raw = recipes.read(path, self._profile)
            if not any(str(key).lower() == "recipeformatversion" for key in document):
                continue
            problems = refusals(document, raw, self._profile)
            if problems:
                raise RecipeError(f"{path.name} is refused ({self._profile}): " + "; ".join(problems))
            recipe = recipes.interpret(document, self._profile)
            self._recipes.setdefault(recipe.name, {})[recipe.version] = recipe
            stored = target / f"{recipe.name}-{recipe.version}{path.suffix}"
            if not stored.exists() or not stored.samefile(path):
                stored.write_bytes(raw)

    def add_artifacts(self, folder: Path) -> None:
        """Copies `<folder>/<name>/<version>/<file>`; a version whose files differ from those held is remade."""
        for source in sorted(folder.glob("*/*/*")):
            if not source.is_file():
                continue
            name, version = source.parts[-3:-1]
            target = self._paths.artifacts(name, version) / source.name
            if target.exists() and filecmp.cmp(source, target, shallow=False):
                continue
            target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
            self._changed.add((name, version))

    def find(self, name: str, requirements: list[str]) -> Recipe | None:
        """The highest version of a component that satisfies every requirement."""
        fitting = [
            version
            for version in self._recipes.get(name, {})
            if all(satisfies(version, requirement) for requirement in requirements)
        ]
        return self._recipes[name][max(fitting)] if fitting else None

    def versions(self, name: str) -> list[str]:
        """The versions held of a component, lowest first."""
        return [str(version) for version in sorted(self._recipes.get(name, {}))]

    def prepare(self, recipe: Recipe, owner: User | None = None) -> bool:
        """Unpacks a component's artifacts, sets their modes and owner. RecipeError if one is absent or unsafe.

        True if they have changed since the last time.
        """
        version = str(recipe.version)
        folder = self._paths.artifacts(recipe.name, version)
        unarchived = self._paths.unarchived(recipe.name, version)
        for path in (folder, unarchived):
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
        changed = made = (recipe.name, version) in self._changed
        for artifact in recipe.artifacts:
            path = folder / artifact.file_name
            if not path.is_file():
                raise RecipeError(
                    f"{recipe.name} {version}: artifact {artifact.uri} is not in the artifact folder "
                    f"(expected {recipe.name}/{version}/{artifact.file_name})"
                )
            path.chmod(_file_mode(artifact))
            target = unarchived / path.stem
            if artifact.unarchive and (changed or not target.exists()):
                _unzip(path, target, _file_mode(artifact))
                made = True
        for path in (folder, unarchived):
            if made and owner:
                os.chown(path, 0, 0)  # what was added is not the user's yet
            give(path, owner)
        self._changed.discard((recipe.name, version))
        return changed


def _file_mode(artifact: Artifact) -> int:
    """Mode of an artifact: never writable, and readable wherever it is executable."""
    mode = 0
    for grant, read, execute in (("OWNER", 0o440, 0o550), ("ALL", 0o444, 0o555)):
        if artifact.read == grant:
            mode |= read
        if artifact.execute == grant:
            mode |= execute
    return mode


def _unzip(archive: Path, target: Path, mode: int) -> None:
    """Replaces `target` by an archive's content. RecipeError if a member would leave it. ZIP modes are not used."""
    fresh = target.with_name(target.name + ".new")
    for leftover in (fresh, target):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(mode=0o755)
    try:
        with zipfile.ZipFile(archive) as content:
            for member, path in _members(content, fresh):
                path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                with content.open(member) as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy, _COPY_BYTES)
                path.chmod(mode)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise RecipeError(f"{archive.name}: {error}") from error
    fresh.rename(target)


def _members(content: zipfile.ZipFile, folder: Path) -> Iterator[tuple[zipfile.ZipInfo, Path]]:
    root = folder.resolve()
    for member in content.infolist():
        path = (root / member.filename).resolve()
        if not path.is_relative_to(root):
            raise RecipeError(f"{content.filename}: member {member.filename!r} would leave its folder")
        if not member.is_dir():
            yield member, path
