"""Components and deployments: what greengrass-cli does over IPC, and UpdateState.

Sources: CLIEventStreamAgent of aws-greengrass-cli, LifecycleIPCEventStreamAgent of aws-greengrass-nucleus.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localdev.core.deployment import Deployment, Request
from localdev.core.lifecycle import Component
from localdev.core.operations.requests import Body, text
from localdev.core.policy import CLI_SERVICE
from localdev.core.resolve import BUILTIN_VERSIONS
from localdev.core.rpc import RpcError, invalid_arguments, not_found, unauthorized
from localdev.core.server import Handler, Stream
from localdev.core.states import State

if TYPE_CHECKING:
    from localdev.core.engine import Engine

LISTED_DEPLOYMENTS = 5


class Components:
    """Operations on the engine's components and deployments."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def handlers(self) -> dict[str, Handler]:
        """The operations of aws.greengrass.Cli, and UpdateState."""
        return {
            "UpdateState": self._update_state,
            "ListComponents": self._list,
            "GetComponentDetails": self._details,
            "RestartComponent": self._restart,
            "StopComponent": self._stop,
            "CreateLocalDeployment": self._deploy,
            "GetLocalDeploymentStatus": self._deployment_status,
            "ListLocalDeployments": self._list_deployments,
        }

    def _update_state(self, stream: Stream, body: Body) -> Body:
        state = text(body, "state")
        component = self._engine.components.get(stream.principal)
        if component is None:
            raise not_found(f"Component with name {stream.principal} not found")
        if state not in ("RUNNING", "ERRORED"):
            raise invalid_arguments(f"state {state!r} must be RUNNING or ERRORED")
        component.report("RUNNING" if state == "RUNNING" else "ERRORED")
        return {}

    def _list(self, stream: Stream, _body: Body) -> Body:
        self._authorize(stream, "*")
        return {"components": [self._describe(component) for component in self._engine.components.values()]}

    def _details(self, stream: Stream, body: Body) -> Body:
        name = text(body, "componentName")
        self._authorize(stream, name)
        component = self._engine.components.get(name)
        if component is None:
            raise not_found(f"Component with name {name} not found in Greengrass")
        return {"componentDetails": self._describe(component)}

    def _describe(self, component: Component) -> Body:
        return {
            "componentName": component.name,
            "version": str(component.recipe.version),
            "state": component.state.value,
            "configuration": self._engine.store.snapshot(component.name),
        }

    def _restart(self, stream: Stream, body: Body) -> Body:
        component = self._component(stream, body)
        if component.name in BUILTIN_VERSIONS:
            return {"restartStatus": "FAILED", "message": f"{component.name} is a part of this core"}
        if component.state is State.BROKEN:
            return {"restartStatus": "FAILED", "message": f"{component.name} is BROKEN: deploy it again"}
        component.restart()
        return {"restartStatus": "SUCCEEDED"}

    def _stop(self, stream: Stream, body: Body) -> Body:
        component = self._component(stream, body)
        if component.name in BUILTIN_VERSIONS:
            return {"stopStatus": "FAILED", "message": f"{component.name} is a part of this core"}
        component.stop_soon()
        return {"stopStatus": "SUCCEEDED"}

    def _component(self, stream: Stream, body: Body) -> Component:
        name = text(body, "componentName")
        self._authorize(stream, name)
        component = self._engine.components.get(name)
        if component is None:
            raise RpcError("ComponentNotFoundError", f"Component with name {name} not found in Greengrass")
        return component

    def _deploy(self, stream: Stream, body: Body) -> Body:
        self._authorize(stream, "*")
        update_config = body.get("componentToConfiguration", {})
        _check_update_config(update_config)
        request = Request(
            recipe_dirs=_folders(body, "recipeDirectoryPath", "InvalidRecipeDirectoryPathError"),
            artifact_dirs=_folders(body, "artifactsDirectoryPath", "InvalidArtifactsDirectoryPathError"),
            merge=body.get("rootComponentVersionsToAdd", {}),
            remove=body.get("rootComponentsToRemove", []),
            update_config=update_config,
        )
        return {"deploymentId": self._engine.deploy(request).id}

    def _deployment_status(self, stream: Stream, body: Body) -> Body:
        deployment_id = text(body, "deploymentId")
        self._authorize(stream, deployment_id)
        deployment = self._engine.deployments.get(deployment_id)
        if deployment is None:
            raise not_found("Cannot find deployment", resourceType="deployment", resourceName=deployment_id)
        return {"deployment": _summary(deployment)}

    def _list_deployments(self, stream: Stream, _body: Body) -> Body:
        self._authorize(stream, "*")
        latest = list(self._engine.deployments.values())[-LISTED_DEPLOYMENTS:]
        return {"localDeployments": [_summary(deployment) for deployment in latest]}

    def _authorize(self, stream: Stream, resource: str) -> None:
        if not self._engine.authorizer.allows(stream.principal, CLI_SERVICE, stream.operation, resource):
            raise unauthorized(
                f"Principal {stream.principal} is not authorized to perform "
                f"{CLI_SERVICE}:aws.greengrass#{stream.operation} on resource {resource}"
            )


def _summary(deployment: Deployment) -> Body:
    summary: Body = {
        "deploymentId": deployment.id,
        "status": deployment.status,
        "createdOn": str(int(deployment.created * 1000)),
    }
    if deployment.status == "SUCCEEDED":
        summary["deploymentStatusDetails"] = {"detailedDeploymentStatus": "SUCCESSFUL"}
    elif deployment.error:
        summary["deploymentStatusDetails"] = {
            "detailedDeploymentStatus": "FAILED_ROLLBACK_NOT_REQUESTED",
            "deploymentFailureCause": deployment.error,
        }
    return summary


def _folders(body: Body, field: str, error: str) -> list[Path]:
    value = body.get(field)
    if not value:
        return []
    path = Path(str(value))
    if not path.is_dir():
        raise RpcError(error, f"{field} {path} is no folder")
    return [path]


def _check_update_config(update_config: Any) -> None:
    """InvalidArgumentsError unless it is {component: {"MERGE": object, "RESET": list of pointers}}."""
    if not isinstance(update_config, Mapping):
        raise invalid_arguments("componentToConfiguration must be an object")
    for name, change in update_config.items():
        if not isinstance(change, Mapping) or set(change) - {"MERGE", "RESET"}:
            raise invalid_arguments(f"configuration of {name}: only MERGE and RESET are known")
        if not isinstance(change.get("MERGE", {}), Mapping) or not isinstance(change.get("RESET", []), list):
            raise invalid_arguments(f"configuration of {name}: MERGE is an object, RESET a list of JSON pointers")
