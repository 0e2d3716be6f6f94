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
HANDLERS = (
    "CollectSample",
    "CreateIotJob",
    "IngestEdgeLogs",
    "LiveInference",
    "RekognizeEmotions",
    "UpdateDeployment",
)
PROGRAM = """
import sys, json, os, boto3
for name in ("s3", "dynamodb", "sqs"):
    boto3.client(name)
before = set(sys.modules)
for name, (folder, environment) in json.loads(sys.argv[1]).items():
    if os.fork() == 0:
        sys.path.insert(0, folder)
        os.environ.update(environment)
        import app
        print(name, *sorted(set(sys.modules) - before), flush=True)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(name + " cannot be imported")
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """What each handler imports, in a process that has done nothing but import boto3 and make clients."""
    stack = Stack(TEMPLATE)
    settings = {function.id: setting(stack, function) for function in stack.of_type("AWS::Lambda::Function")}
    wanted = {name: (each.folder, each.environment) for name, each in settings.items()}
    command = [sys.executable, "-I", "-c", PROGRAM, json.dumps(wanted)]
    environment = {"AWS_DEFAULT_REGION": "us-east-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {name: modules for name, *modules in map(str.split, done.stdout.splitlines())}


def test_every_handler_is_looked_at(imported: dict[str, list[str]]) -> None:
    assert sorted(imported) == sorted(HANDLERS)


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_imports_little(name: str, imported: dict[str, list[str]]) -> None:
    assert not HEAVY & {module.partition(".")[0] for module in imported[name]}
    assert len(imported[name]) <= MODULES, len(imported[name])
