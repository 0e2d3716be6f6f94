"""Start-up and idle memory stay small because nothing heavy is loaded before it is needed, or at all."""

import subprocess
import sys

NEVER = ("boto3", "botocore.client", "orjson", "numpy")


def test_importing_the_component_loads_neither_aws_nor_http_client_libraries() -> None:
    code = "import sys, log_shipper.component; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={},
        capture_output=True,
        timeout=20,
        check=True,
    )
    loaded = set(done.stdout.decode().split())
    assert loaded.isdisjoint({"botocore", "awsiot", "awscrt", "urllib3", "asyncio", "unittest", *NEVER})
