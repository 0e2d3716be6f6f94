"""What the page is made of: it names nothing that is not there and nothing elsewhere, and holds nothing inline."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from monitor.page import STATIC

PAGES = ["index.html", "sign-in.html"]
SERVED = {"/", "/sign-in", "/sign-out", "/api/state"}
MODULES = sorted(path.name for path in STATIC.glob("*.js"))
# Ways by which what a device says could become markup or code.
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc")


class Tags(HTMLParser):
    """The tags of a page and the text within `script` and `style`."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inline = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in {"script", "style"}:
            self.inline += data.strip()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_what_is_there(page: str) -> None:
    named = {tag.get(name, "") for _, tag in Tags(STATIC / page).tags for name in ("src", "href", "action")}
    for address in {name for name in named if name and not name.startswith("#")} - SERVED:
        assert address.startswith("/static/") and (STATIC / address.removeprefix("/static/")).is_file(), address


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_nothing_inline(page: str) -> None:
    found = Tags(STATIC / page)
    assert found.inline == ""
    assert not [name for _, tag in found.tags for name in tag if name == "style" or name.startswith("on")]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_is_there_and_makes_no_markup(module: str) -> None:
    text = (STATIC / module).read_text(encoding="utf-8")
    for name in re.findall(r'^import .* from "(.*)";$', text, re.MULTILINE):
        assert name.startswith("./") and (STATIC / name).is_file(), name
    assert not MARKUP.search(text)
    assert not re.search(r"https?://(?!\$)", text)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_used_and_what_it_imports_is_exported(module: str) -> None:
    others = [path.read_text(encoding="utf-8") for path in STATIC.iterdir() if path.name != module]
    assert any(f'"./{module}"' in text or f'"/static/{module}"' in text for text in others)
    for names, source in re.findall(r'^import \{(.*)\} from "./(.*)";$', (STATIC / module).read_text(), re.MULTILINE):
        exported = (STATIC / source).read_text(encoding="utf-8")
        for name in (each.strip() for each in names.split(",")):
            assert re.search(rf"^export (async )?(function|class|const) {name}\b", exported, re.MULTILINE), (
                source,
                name,
            )
