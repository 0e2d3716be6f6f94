"""SageMaker endpoints: InvokeEndpoint reaches a container process that serves a real model."""

import contextlib
import json
import select
import subprocess
import sys
from pathlib import Path

import requests

from localdev.cloud.aws import Request, Response

START_TIMEOUT_S = 30.0
MODEL_TIMEOUT_S = 60.0  # of SageMaker
MAX_BODY_BYTES = 25 * 1024 * 1024
PASSED_ON = ("accept", "x-amzn-sagemaker-custom-attributes")


class Endpoints:
    """A stand-in for LocalAws. An endpoint is `serve`d from an ONNX file, or `add`ed by its container's URL."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._processes: list[subprocess.Popen[str]] = []

    def add(self, name: str, url: str) -> None:
        """`url` is that of a running container, without /invocations."""
        self._urls[name] = url

    def serve(self, name: str, model: Path) -> None:
        """Starts a container for an ONNX model and waits until it answers /ping."""
        process = subprocess.Popen(
            [sys.executable, "-m", "localdev.cloud.container", str(model)],
            env={},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever started us, who then calls stop()
        )
        self._processes.append(process)
        assert process.stdout is not None  # noqa: S101  (a pipe)
        ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        port = process.stdout.readline().strip() if ready else ""
        if not port:
            raise RuntimeError(f"the container for {model} did not start")
        self.add(name, f"http://127.0.0.1:{port}")
        requests.get(f"{self._urls[name]}/ping", timeout=START_TIMEOUT_S).raise_for_status()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait(5)
            if process.stdout is not None:
                with contextlib.suppress(OSError):
                    process.stdout.close()
        self._processes.clear()

    def __call__(self, request: Request) -> Response | None:
        parts = request.path.split("/")
        if request.service != "sagemaker" or parts[1] != "endpoints" or parts[-1] != "invocations":
            return None
        url = self._urls.get(parts[2])
        if url is None:
            return _error(400, "ValidationError", f"Endpoint {parts[2]} of account not found.")
        if len(request.body) > MAX_BODY_BYTES:
            return _error(400, "ValidationError", f"body has {len(request.body)} bytes, {MAX_BODY_BYTES} are allowed")
        headers = {"Content-Type": request.headers["content-type"]}
        headers |= {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        try:
            answer = requests.post(f"{url}/invocations", request.body, headers=headers, timeout=MODEL_TIMEOUT_S)
        except requests.RequestException as error:
            return _error(424, "ModelError", f"Received no answer from primary: {type(error).__name__}")
        if answer.status_code != 200:
            extra = {"OriginalStatusCode": answer.status_code, "OriginalMessage": answer.text}
            return _error(424, "ModelError", f"Received client error ({answer.status_code}) from primary", **extra)
        headers = {
            "Content-Type": answer.headers.get("Content-Type", ""),
            "x-Amzn-Invoked-Production-Variant": "primary",
        }
        return Response(answer.content, headers=headers)


def _error(status: int, code: str, message: str, **extra: object) -> Response:
    body = json.dumps({"Message": message, **extra}).encode()
    return Response(body, status, {"Content-Type": "application/json", "x-amzn-ErrorType": code})
