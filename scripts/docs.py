"""What is said once and stands in several places: the rest of them is written from there.

From the Config struct of a component: the table of its README, its JSON Schema in recipes/schema, and the
DefaultConfiguration of its recipe (but accessControl). From `__version__`: the version of its recipe and of its GDK
configuration. From the structs of MESSAGES: schemas of what the cloud is told. `--check` writes nothing and fails on
any difference. Either way each recipe is held against what both nuclei accept, and against what they accept and then do
not do as meant.
"""

import argparse
import importlib
import importlib.util
import json
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import inspect

from localdev.core import Profile, check_recipe
from localdev.core.users import is_removed

ROOT = Path(__file__).resolve().parent.parent
SET_BY_SUDO = {"HOME", "LOGNAME", "MAIL", "PATH", "SHELL", "USER"}
RECIPE_VERSION = re.compile(r"^(ComponentVersion: ).*$", re.MULTILINE)
GDK_VERSION = re.compile(r"(\"version\": )\"[^\"]*\"")
DEFAULTS = re.compile(r"(?<=^  DefaultConfiguration:\n)(?:    (?!accessControl:).*\n)*", re.MULTILINE)
MARKERS = re.compile(r"(<!-- config -->\n).*?(<!-- /config -->)", re.DOTALL)

MESSAGES = {  # schemas of what others write and read
    "edgeml.Monitor.report": ("monitor.report", "Report"),
    "edgeml.Monitor.look": ("monitor.look", "Request"),
    "edgeml.Monitor.look.reply": ("monitor.look", "Answer"),
}

Row = tuple[str, str, str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="report differences instead of writing")
    check = parser.parse_args().check
    problems: list[str] = []
    for folder in sorted((ROOT / "components").glob("*/config.py")):
        package = folder.parent.name
        recipe = (folder.parent / "recipe.yaml").resolve()
        if package == "edgeml" or not recipe.exists():
            continue
        kind = importlib.import_module(f"{package}.config").Config
        version = importlib.import_module(package).__version__
        problems += written(recipe, with_defaults(with_version(recipe, RECIPE_VERSION, version), kind), check)
        gdk = (folder.parent / "gdk-config.json").resolve()
        problems += written(gdk, with_version(gdk, GDK_VERSION, version), check)
        problems += written(ROOT / "recipes" / "schema" / f"{recipe.stem}.json", schema_of(kind), check)
        problems += written(folder.parent / "README.md", with_table(folder.parent / "README.md", kind), check)
    for name, (module, kind) in MESSAGES.items():
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            continue  # a copy without that component
        schema = schema_of(getattr(importlib.import_module(module), kind))
        problems += written(ROOT / "recipes" / "schema" / f"{name}.json", schema, check)
    problems += [problem for path in sorted((ROOT / "recipes").glob("*.yaml")) for problem in recipe_problems(path)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def schema_of(kind: Any) -> str:
    """JSON Schema; a struct that needs no tag does not ask for one either, and nothing else may come without."""
    schema = msgspec.json.schema(kind)
    types = [kind]
    while types:
        info = types.pop()
        info = inspect.type_info(info) if isinstance(info, type) else info
        if isinstance(info, inspect.StructType):
            if info.tag_field and _is_untagged(info):
                schema["$defs"][info.cls.__name__]["required"].remove(info.tag_field)
            types += [field.type for field in info.fields]
        types += [inner for name in ("type", "value_type", "item_type") if (inner := getattr(info, name, None))]
        types += getattr(info, "types", ())
    return json.dumps(schema, indent=2) + "\n"


def recipe_problems(path: Path) -> list[str]:
    """What either nucleus would refuse, or take and then not do as meant."""
    raw = path.read_bytes()
    recipe = yaml.load(raw, yaml.CSafeLoader)
    refused = [f"{path.name} ({p.value}): {text}" for p in Profile for text in check_recipe(recipe, raw, p)]
    return refused + [f"{path.name}: {text}" for text in misunderstood(recipe)]


def misunderstood(recipe: dict[str, Any]) -> Iterator[str]:
    """What a recipe of ours must not say though both nuclei take it, each with the reason."""
    for name, dependency in (recipe.get("ComponentDependencies") or {}).items():
        if dependency.get("DependencyType") != "SOFT":
            yield f"{name} must be a SOFT dependency: who depends HARD stops with it, on Lite until the next deployment"
    scopes = [recipe, *recipe["Manifests"]]
    for lifecycle in (scope["Lifecycle"] for scope in scopes if isinstance(scope.get("Lifecycle"), dict)):
        steps = {name: step for name, step in lifecycle.items() if isinstance(step, dict) and name != "Setenv"}
        for where, holder in (("Lifecycle", lifecycle), *steps.items()):
            for variable, value in (holder.get("Setenv") or {}).items():
                if is_removed(variable) or variable in SET_BY_SUDO or str(value).startswith("()"):
                    yield f"{where}.Setenv.{variable} never arrives: the Java nucleus starts scripts by sudo"
        for name, step in steps.items():
            yield from _timeout(name, step)
        if isinstance(lifecycle.get("install"), str):
            yield from _timeout("install", {})


def _timeout(name: str, step: dict[str, Any]) -> Iterator[str]:
    if "Timeout" not in step:
        if name == "install":
            yield 'install.Timeout is missing, and the 120 s that a core then gives are too few for pip: "900"'
    elif not isinstance(step["Timeout"], str) or not step["Timeout"].isascii() or not step["Timeout"].isdigit():
        yield (
            f"{name}.Timeout must be whole seconds in quotes, not {step['Timeout']!r}: a number comes back from the "
            "Java nucleus' disk as another type, and it reinstalls after every restart"
        )


def with_version(path: Path, place: re.Pattern[str], version: str) -> str:
    """The text of a file whose one version is that of the package. Raises SystemExit unless it has one such line."""
    text, found = place.subn(lambda line: f'{line[1]}"{version}"', path.read_text(encoding="utf-8"))
    if found != 1:
        raise SystemExit(f"{path}: expected one line with the version, found {found}")
    return text


def with_defaults(recipe: str, kind: Any) -> str:
    """The recipe whose DefaultConfiguration is what `kind` has as defaults; as it stands if it is already.

    Raises SystemExit where there is no DefaultConfiguration, or accessControl is not the last of it.
    """
    defaults = json.loads(msgspec.json.encode(kind()))
    if _defaults(recipe) == defaults:
        return recipe
    lines = yaml.safe_dump(defaults, sort_keys=False, allow_unicode=True, width=1000) if defaults else ""
    text = DEFAULTS.sub(lambda _: textwrap.indent(lines, "    "), recipe)
    if _defaults(text) != defaults:
        raise SystemExit(f"recipe of {kind.__module__}: expected DefaultConfiguration, with accessControl last in it")
    return text


def _defaults(recipe: str) -> dict[str, Any]:
    read = yaml.load(recipe, yaml.CSafeLoader)
    stated = dict((read.get("ComponentConfiguration") or {}).get("DefaultConfiguration") or {})
    stated.pop("accessControl", None)
    return stated


def with_table(readme: Path, kind: Any) -> str:
    """The README with its configuration table renewed."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if not MARKERS.search(text):
        return text + "\n<!-- config -->\n<!-- /config -->\n"
    lines = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{key}` | {shown} | {default} | {text} |" for key, shown, default, text in rows(kind)]
    table = "\n".join(lines)
    return MARKERS.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def rows(kind: Any, prefix: str = "", whole: Any = None) -> Iterator[Row]:
    """(key, type, default, description) of each field, nested ones after their parent.

    `whole` is what the struct is when it is left out: a field may then be something else than where it is given.
    """
    info: Any = inspect.type_info(kind) if isinstance(kind, type) else kind
    if info.tag_field is not None and prefix:
        words = f"chooses {info.tag}" + (", as does no word at all" if _is_untagged(info) else "")
        yield f"{prefix}{info.tag_field}", "text", f"`{info.tag}`", words
    for field in info.fields:
        key = f"{prefix}{field.encode_name}"
        meta = field.type if isinstance(field.type, inspect.Metadata) else None
        described = (meta.extra_json_schema or {}).get("description", "") if meta else ""
        inner = meta.type if meta else field.type
        nested = list(_nested(inner, key))
        default = _default(field, bool(nested))
        without = f"`{json.dumps(msgspec.to_builtins(getattr(whole, field.name)))}`" if whole is not None else default
        if not nested and without != default:
            default += f", {without} where `{prefix.rstrip('.').rpartition('.')[2]}` is left out"
        yield key, _type_name(inner), default, described.replace("|", "\\|")
        whole_of = field.default if isinstance(field.default, msgspec.Struct) else None
        yield from _once([list(rows(member, path, whole_of)) for member, path in nested])


def _once(kinds: list[list[Row]]) -> Iterator[Row]:
    """The rows of each of several kinds, and at the end those of a key of all kinds that most of them share."""
    keys = set.intersection(*({row[0] for row in kind} for kind in kinds)) if len(kinds) > 1 else set()
    often = Counter(row for kind in kinds for row in kind)
    shared = [row for row, count in often.items() if row[0] in keys and 2 * count > len(kinds)]
    for kind in kinds:
        yield from (row for row in kind if row not in shared)
    yield from shared


def _is_untagged(info: inspect.StructType) -> bool:
    return bool(getattr(info.cls, "untagged", False))


def _nested(kind: Any, key: str) -> Iterator[tuple[Any, str]]:
    """The structs inside a field's type, with the prefix their fields have."""
    if isinstance(kind, inspect.Metadata):
        yield from _nested(kind.type, key)
    elif isinstance(kind, inspect.StructType):
        yield kind, f"{key}."
    elif isinstance(kind, inspect.DictType):
        yield from _nested(kind.value_type, f"{key}.<name>")
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        yield from _nested(kind.item_type, f"{key}[]")
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _nested(member, key)


def _type_name(kind: Any) -> str:
    names: dict[Any, str] = {
        inspect.StrType: "text",
        inspect.IntType: "integer",
        inspect.FloatType: "number",
        inspect.BoolType: "true or false",
        inspect.NoneType: "null",
        inspect.AnyType: "any",
    }
    if isinstance(kind, inspect.Metadata):
        return _type_name(kind.type)
    if isinstance(kind, inspect.LiteralType):
        return ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, inspect.ListType | inspect.VarTupleType):
        return f"list of {_type_name(kind.item_type)}"
    if isinstance(kind, inspect.DictType):
        return "map by name"
    if isinstance(kind, inspect.UnionType):
        return " or ".join(dict.fromkeys(_type_name(member) for member in kind.types))
    text = names.get(type(kind), "object")
    bounds = [f"{sign} {value}" for sign, value in _bounds(kind)]
    return f"{text} {', '.join(bounds)}" if bounds else text


def _bounds(kind: Any) -> Iterator[tuple[str, Any]]:
    for sign, name in ((">", "gt"), ("≥", "ge"), ("<", "lt"), ("≤", "le")):
        if getattr(kind, name, None) is not None:
            yield sign, getattr(kind, name)


def _default(field: inspect.Field, nested: bool) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not inspect.NODEFAULT else field.default_factory()  # type: ignore[attr-defined]
    if nested and not isinstance(value, dict | list | tuple):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def written(path: Path, text: str, check: bool) -> list[str]:
    """Write `text`; with `check`, say instead that the file differs."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    if check:
        return [f"{path.relative_to(ROOT)} is not what config.py and __version__ give; run scripts/docs.py"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return []


if __name__ == "__main__":
    raise SystemExit(main())
