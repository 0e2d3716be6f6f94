"""One Lambda execution environment: a process that runs one handler for as long as it is fed.

The first line on stdin is the setting, each further line an invocation; each gets one line of answer on what was
stdout at the start. What the handler prints goes to stderr. AWS calls that the function's role does not grant are
refused here, as IAM would. Run with -I -S and the folder of installed packages: only those, the standard library and
the function's folder are found, and nothing of this tree.
"""

import importlib
import json
import os
import runpy
import sys
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Context:
    """What Lambda gives a handler beside the event."""

    def __init__(self, name: str, arn: str, memory: int, timeout_s: float, request_id: str) -> None:
        self.function_name = name
        self.function_version = "$LATEST"
        self.invoked_function_arn = arn
        self.memory_limit_in_mb = memory
        self.aws_request_id = request_id
        self.log_group_name = f"/aws/lambda/{name}"
        self.log_stream_name = "local"
        self.identity = self.client_context = None
        self._deadline = time.monotonic() + timeout_s

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def guard(statements: list[dict[str, Any]], region: str, account: str) -> set[tuple[str, str]]:
    """From here on boto3's clients refuse what `statements` do not grant. What is asked for collects in the set."""
    import boto3
    from botocore.awsrequest import AWSResponse

    iam: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("iam.py"))))
    asked: set[tuple[str, str]] = set()

    def remember(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        context["call"] = (model.service_model.service_name, model.name, params)

    def check(model: Any, context: dict[str, Any], **_: Any) -> Any:
        service, operation, params = context["call"]
        keys = iam.condition_keys(service, params)
        for need in iam.needs(service, operation, params, region, account):
            asked.add(need)
            if not iam.allowed(statements, need, keys):
                message = f"the function's role does not allow {need[0]} on {need[1]}"
                error = {"Error": {"Code": "AccessDeniedException", "Message": message}, "ResponseMetadata": {}}
                return AWSResponse("", 403, {}, None), error
        return None

    boto3.setup_default_session()
    events = boto3.DEFAULT_SESSION.events
    events.register("provide-client-params.*.*", remember)
    events.register("before-call.*.*", check)
    return asked


def main() -> None:
    sys.path.append(sys.argv[1])
    sys.modules["awscrt"] = None  # type: ignore[assignment]  # Lambda has none, and a third of boto3's import is this
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    setting = json.loads(sys.stdin.readline())
    asked = guard(setting["statements"], setting["region"], setting["account"])
    module, _, name = setting["handler"].rpartition(".")
    sys.path.insert(0, setting["folder"])
    handler = getattr(importlib.import_module(module), name)
    for line in sys.stdin:
        call = json.loads(line)
        context = Context(setting["name"], setting["arn"], setting["memory"], setting["timeout_s"], call["id"])
        try:
            answer: dict[str, Any] = {"result": handler(call["event"], context)}
            json.dumps(answer)
        except Exception as error:  # noqa: BLE001  (becomes the invocation's answer, as in Lambda)
            trace = traceback.format_exception(error)
            sys.stderr.write("".join(trace))
            kind = "Runtime.MarshalError" if "is not JSON serializable" in str(error) else type(error).__name__
            answer = {"error": {"errorType": kind, "errorMessage": str(error), "stackTrace": trace}}
        sys.stderr.flush()
        sys.stdout.flush()
        answer["asked"] = sorted(asked)
        asked.clear()
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
