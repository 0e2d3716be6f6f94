import http.server
import threading

import pytest

from edgeml.edge_impulse.results import Result, content
from edgeml.edge_impulse.studio import Studio
from edgeml.errors import StudioError

KEY = "ei_0123456789abcdef"


def test_a_redirect_takes_the_key_to_no_other_host() -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers["host"])
            self.send_response(302)
            self.send_header("location", f"http://localhost:{server.server_port}/{KEY}")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])
    thread.start()
    try:
        with pytest.raises(StudioError, match="another host") as caught:
            Studio(KEY, f"http://127.0.0.1:{server.server_port}").get("projects")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == [f"127.0.0.1:{server.server_port}"]
    assert KEY not in str(caught.value)


def test_a_classification_counts_as_one_inference() -> None:
    assert content(Result(classification={"a": 0.5, "b": 0.5})) == ({"c": {"a": 0.5, "b": 0.5}}, 1)
