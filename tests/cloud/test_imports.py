"""Cold starts: what a handler imports beyond boto3 is bounded, counted in modules rather than in time."""

import json
import subprocess
import sys

import pytest

from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.lambdas import setting
from localdev.cloud.template import Stack

MODULES = 160  # beyond boto3 and its clients; Powertools' event handler brings most of them
HEAVY = {"aws_xray_sdk", "cryptography", "jsonschema", "numpy", "pandas", "pydantic", "requests", "yaml"}
PROGRAM = """
import sys, json, boto3
for name in ("s3", "dynamodb", "sqs"):
    boto3.client(name)
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
import app
print(json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.parametrize("name", [f.name for f in Stack(TEMPLATE).of_type("AWS::Lambda::Function")])
def test_a_handler_imports_little(name: str) -> None:
    stack = Stack(TEMPLATE)
    function = setting(stack, stack.resources[name])
    environment = {"AWS_DEFAULT_REGION": "us-east-1", **function.environment}
    command = [sys.executable, "-I", "-c", PROGRAM, function.folder]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    imported = json.loads(done.stdout)
    assert not HEAVY & {module.partition(".")[0] for module in imported}
    assert len(imported) <= MODULES, len(imported)
