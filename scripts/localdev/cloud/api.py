"""API Gateway: the REST APIs of a stack on a port of their own, with API keys, CORS and metrics."""

import json
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from localdev.cloud import events
from localdev.cloud.lambdas import Function, FunctionError
from localdev.cloud.routes import may_invoke
from localdev.cloud.serving import Server
from localdev.cloud.template import Stack

KEY = "local-key"  # what callers send as x-api-key

OnRequest = Callable[[str, int, float], None]  # API name, status, milliseconds


class ApiGateway:
    """`url` + `/<stage>/<path>`. Paths, methods and whether a key is needed come from the APIs' OpenAPI bodies."""

    def __init__(self, stack: Stack, functions: dict[str, Function], on_request: OnRequest) -> None:
        self._stack = stack
        self._functions = functions
        self._on_request = on_request
        self._routes = {
            (f"/{stage.properties['StageName']}{path}", method.upper()): (
                api.properties.get("Name", api.id),
                path,
                operation,
            )
            for stage in stack.of_type("AWS::ApiGateway::Stage")
            for api in [stack.resources[stage.properties["RestApiId"]]]
            for path, operations in api.properties["Body"]["paths"].items()
            for method, operation in operations.items()
        }
        self._server = Server(self._wsgi, name="api")
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.stop()

    def _wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start = time.monotonic()
        route = self._routes.get((environ["PATH_INFO"], environ["REQUEST_METHOD"]))
        name, path, operation = route or ("", "", {})
        status, headers, body = (
            self._answer(environ, path, operation) if route else forbidden("Missing Authentication Token")
        )
        if name:
            self._on_request(name, status, (time.monotonic() - start) * 1000)
        start_response(f"{status} {HTTPStatus(status).phrase}", list(headers.items()))
        return [body]

    def _answer(
        self, environ: dict[str, Any], path: str, operation: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        integration = operation["x-amazon-apigateway-integration"]
        if integration["type"] == "mock":
            parameters = integration["responses"]["default"]["responseParameters"]
            return 200, {name.rpartition(".")[2]: str(value).strip("'") for name, value in parameters.items()}, b""
        if operation.get("security") and environ.get("HTTP_X_API_KEY") != KEY:
            return forbidden("Forbidden")
        function_arn = integration["uri"].partition("/functions/")[2].removesuffix("/invocations")
        if not may_invoke(self._stack, function_arn, "apigateway.amazonaws.com"):
            return failed("Internal server error")
        headers = {k[5:].replace("_", "-").lower(): str(v) for k, v in environ.items() if k.startswith("HTTP_")}
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        stage = environ["PATH_INFO"].split("/")[1]
        try:
            answer = self._functions[function_arn].invoke(
                events.api(environ["REQUEST_METHOD"], path, stage, query, headers)
            )
        except FunctionError:
            return failed("Internal server error")
        given = {
            **{k: ",".join(v) for k, v in (answer.get("multiValueHeaders") or {}).items()},
            **(answer.get("headers") or {}),
        }
        return answer["statusCode"], given, (answer.get("body") or "").encode()


def forbidden(message: str) -> tuple[int, dict[str, str], bytes]:
    return 403, {"Content-Type": "application/json"}, json.dumps({"message": message}).encode()


def failed(message: str) -> tuple[int, dict[str, str], bytes]:
    return 502, {"Content-Type": "application/json"}, json.dumps({"message": message}).encode()
