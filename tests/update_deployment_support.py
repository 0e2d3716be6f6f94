"""What tests of update_deployment share: a deployment of someone's, and the function's answer to an approval."""

from types import ModuleType
from typing import Any

from ota_support import LambdaContext

NAME = "edgeml.model.WindTurbine"


EVENT = {"component_name": NAME, "component_version": "2.0.0"}


NUCLEUS = {"componentVersion": "2.17.0"}


COMPONENTS: dict[str, dict[str, Any]] = {
    NAME: {"componentVersion": "1.0.0", "configurationUpdate": {"merge": '{"x": 1}', "reset": ["/y"]}},
    "edgeml.Inferencer": {
        "componentVersion": "1.0.0",
        "configurationUpdate": {"merge": '{"pipelines": {}}'},
        "runWith": {"posixUser": "ggc_user", "systemResourceLimits": {"cpus": 0.5, "memory": 100000}},
    },
    "aws.greengrass.Nucleus": NUCLEUS,
}


def deploy(gg: Any, arn: str, components: dict[str, Any] = COMPONENTS, **more: Any) -> str:
    return str(gg.create_deployment(targetArn=arn, components=components, **more)["deploymentId"])


def handled(app: ModuleType, event: dict[str, Any] = EVENT) -> dict[str, str]:
    return dict(app.handler(event, LambdaContext()))


def latest(gg: Any, arn: str) -> dict[str, Any]:
    (found,) = gg.list_deployments(targetArn=arn, historyFilter="LATEST_ONLY")["deployments"]
    return dict(gg.get_deployment(deploymentId=found["deploymentId"]))
