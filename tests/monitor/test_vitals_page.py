"""The device's vitals in the real process: found by what the configuration says, and over when it says otherwise."""

from pathlib import Path

import httpx

from support import Standalone, eventually

CALM = {"interval_s": 1, "skip": ["clock", "disk", "network", "packages", "temperature", "voltage", "wear"]}


def test_a_limit_of_the_configuration_is_a_problem_until_it_is_changed(tmp_path: Path) -> None:
    low = {**CALM, "memory_free_percent": 100}
    with Standalone("monitor", {"port": 0, "auth": "off", "vitals": low}, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        base = running.log.partition("address=http://")[2].split()[0]
        with httpx.Client(base_url=f"http://{base}", trust_env=False, timeout=10) as client:
            eventually(lambda: client.get("/healthz").status_code == 503, what="the problem")
            shown = client.get("/api/state").json()["vitals"]["memory_free"]
            assert (shown["label"], shown["unit"], shown["problem"]) == ("Memory free", "bytes", True)
            assert shown["value"] > 0
            assert client.get("/healthz").text.startswith("edgeml.Monitor memory_low memory: no more than 100 %")
            running.configure({"port": 0, "auth": "off", "vitals": CALM})
            eventually(lambda: client.get("/healthz").status_code == 200, what="its end")
        assert running.log.count("address=http://") == 1, "the page is not served anew for that"
        assert running.stop() == 0
