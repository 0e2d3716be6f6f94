"""The built component on both kinds of core."""

import re
from urllib.request import ProxyHandler, build_opener

import pytest

from integration.conftest import Start
from localdev.core import LocalCore
from support import eventually


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_the_page_is_served_where_the_log_says(start: Start, profile: str) -> None:
    with start({"monitor": {"port": 0}}, profile=profile) as core:
        address = page(core)
        with build_opener(ProxyHandler({})).open(f"{address}healthz", timeout=10) as answer:
            assert (answer.status, answer.read()) == (200, b"ok\n")
        assert core.state("edgeml.Monitor") == "RUNNING"


def page(core: LocalCore) -> str:
    eventually(lambda: "address=http://" in core.log("edgeml.Monitor"), 20, "the page's address")
    found = re.search(r"address=(http://127\.0\.0\.1:\d+/)", core.log("edgeml.Monitor"))
    assert found is not None
    return found[1]
