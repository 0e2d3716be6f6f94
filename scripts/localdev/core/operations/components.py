"""Components and deployments: what greengrass-cli does over IPC, and UpdateState.

Sources: CLIEventStreamAgent of aws-greengrass-cli, LifecycleIPCEventStreamAgent of aws-greengrass-nucleus.
"""

import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localdev.core.deployment_model import Deployment, Request
from localdev.core.deployments import Deployments
from localdev.core.lifecycle import Component
from localdev.core.operations.requests import Body
from localdev.core.policy import CLI_SERVICE, LIFECYCLE
from localdev.core.profiles import Profile
from localdev.core.resolve import BUILTIN_VERSIONS
from localdev.core.rpc import invalid_arguments, not_found, service_error, unauthorized
from localdev.core.server import Handler, Stream
from localdev.core.state import CoreState
from localdev.core.states import State

DEBUG_PASSWORD_SECONDS = 8 * 3600
UTC_FORMAT = "%d-%m-%Y %H:%M:%S UTC"
_UUID = re.compile(r"[0-9a-fA-F]{1,8}(?:-[0-9a-fA-F]{1,4}){3}-[0-9a-fA-F]{1,12}")


class Components:
    """Operations on the core's components and deployments."""

    def __init__(self, core: CoreState, deployments: Deployments) -> None:
        self._core, self._deployments = core, deployments
        self._lite = core.profile is Profile.LITE

    def handlers(self) -> dict[str, Handler]:
        """The operations of aws.greengrass.Cli, and those on the state of components."""
        return {
            "UpdateState": self._update_state,
            "PauseComponent": self._pause,
            "ResumeComponent": self._resume,
            "ListComponents": self._list,
            "GetComponentDetails": self._details,
            "RestartComponent": self._restart,
            "StopComponent": self._stop,
            "CreateLocalDeployment": self._deploy,
            "CancelLocalDeployment": self._cancel,
            "GetLocalDeploymentStatus": self._deployment_status,
            "ListLocalDeployments": self._list_deployments,
            "CreateDebugPassword": self._debug_password,
        }

    def _update_state(self, stream: Stream, body: Body) -> Body:
        state = body.get("state")
        component = self._core.components.get(stream.principal)
        if component is None:
            raise not_found("Component with given name not found", resourceType="Component")
        if state not in ("RUNNING", "ERRORED"):
            raise service_error("Received invalid parameters." if self._lite else _NO_STATE)
        component.report("RUNNING" if state == "RUNNING" else "ERRORED")
        return {}

    async def _pause(self, stream: Stream, body: Body) -> Body:
        component = self._external(stream, body, "paused")
        if component.state is not State.RUNNING:
            raise invalid_arguments(f"Component {component.name} is not running")
        await component.pause()
        return {}

    async def _resume(self, stream: Stream, body: Body) -> Body:
        component = self._external(stream, body, "resumed")
        if not component.paused:
            raise invalid_arguments(f"Component {component.name} is not paused")
        await component.resume()
        return {}

    def _external(self, stream: Stream, body: Body, done: str) -> Component:
        name = body.get("componentName")
        if not name:
            raise invalid_arguments("Component name is required.")
        self._authorize(stream, name, LIFECYCLE)
        component = self._core.components.get(name)
        if component is None:
            raise not_found("")
        if name in BUILTIN_VERSIONS:
            raise invalid_arguments(f"Only generic components can be {done}.")
        return component

    def _list(self, stream: Stream, _body: Body) -> Body:
        self._authorize(stream, "*")
        listed = [self._describe(component) for component in self._core.components.values()]
        services = [] if self._lite else [{"componentName": name, **_SERVICE} for name in _SERVICES]
        return {"components": services + listed}

    def _details(self, stream: Stream, body: Body) -> Body:
        return {"componentDetails": self._describe(self._component(stream, body))}

    def _describe(self, component: Component) -> Body:
        return {
            "componentName": component.name,
            "version": str(component.recipe.version),
            "state": component.state.value,
            "configuration": self._core.store.snapshot(component.name),
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
        name = body.get("componentName")
        if not name:
            raise invalid_arguments("Component name cannot be empty")
        self._authorize(stream, name)
        component = self._core.components.get(name)
        if component is None:
            raise not_found(f"Component with name {name} not found in Greengrass")
        return component

    def _deploy(self, stream: Stream, body: Body) -> Body:
        if self._lite:
            self._authorize_lite_deployment(stream)
        else:
            self._authorize(stream, "*")
        update_config = body.get("componentToConfiguration", {})
        _check_update_config(update_config)
        if ":" in body.get("groupName", ""):
            raise invalid_arguments("Thing group name cannot contain colon characters")
        request = Request(
            recipe_dirs=_folders(body, "recipeDirectoryPath"),
            artifact_dirs=_folders(body, "artifactsDirectoryPath"),
            merge=body.get("rootComponentVersionsToAdd", {}),
            remove=body.get("rootComponentsToRemove", []),
            update_config=update_config,
            run_with={
                name: str(info["posixUser"])
                for name, info in body.get("componentToRunWithInfo", {}).items()
                if isinstance(info, dict) and info.get("posixUser")
            },
            rollback=str(body.get("failureHandlingPolicy", "")).upper() == "ROLLBACK",
        )
        return {"deploymentId": self._deployments.deploy(request).id}

    def _authorize_lite_deployment(self, stream: Stream) -> None:
        if not self._core.authorizer.allows(stream.principal, CLI_SERVICE, stream.operation, ""):
            raise service_error("IPC Operation not authorized.")

    def _cancel(self, stream: Stream, body: Body) -> Body:
        deployment_id = _uuid(body)
        self._authorize(stream, "*")
        if deployment_id not in self._deployments.all:
            raise not_found(
                f"Cannot find the deployment id provided {deployment_id}",
                resourceType="LocalDeployment",
                resourceName=deployment_id,
            )
        if not self._deployments.cancel(deployment_id):
            return {"message": "Cancellation request is not processed because deployment is already finished"}
        return {"message": f"Cancel request submitted. Deployment ID: {deployment_id}"}

    def _deployment_status(self, stream: Stream, body: Body) -> Body:
        deployment_id = _uuid(body)
        self._authorize(stream, deployment_id)
        deployment = self._deployments.all.get(deployment_id)
        if deployment is None:
            raise not_found("Cannot find deployment", resourceType="LocalDeployment", resourceName=deployment_id)
        return {"deployment": _summary(deployment) | _details(deployment)}

    def _list_deployments(self, stream: Stream, _body: Body) -> Body:
        self._authorize(stream, "*")
        return {"localDeployments": [_summary(deployment) for deployment in self._deployments.all.values()]}

    def _debug_password(self, stream: Stream, _body: Body) -> Body:
        self._authorize(stream, "*")
        return {
            "username": "debug",
            "password": secrets.token_urlsafe(32),
            "passwordExpiration": time.time() + DEBUG_PASSWORD_SECONDS,
        }

    def _authorize(self, stream: Stream, resource: str, service: str = CLI_SERVICE) -> None:
        if not self._core.authorizer.allows(stream.principal, service, stream.operation, resource):
            raise unauthorized(
                f"Principal {stream.principal} is not authorized to perform "
                f"{service}:aws.greengrass#{stream.operation} on resource {resource}"
            )


_SERVICES = ("FleetStatusService", "UpdateSystemPolicyService", "DeploymentService", "TelemetryAgent")
_SERVICE = {"version": "0.0.0", "state": "RUNNING"}  # parts of the nucleus, which it lists beside components
_NO_STATE = (  # the text of the NullPointerException that the nucleus passes on
    'Cannot invoke "software.amazon.awssdk.aws.greengrass.model.ReportedLifecycleState.toString()" because the return '
    'value of "software.amazon.awssdk.aws.greengrass.model.UpdateStateRequest.getState()" is null'
)


def _uuid(body: Body) -> str:
    deployment_id = body.get("deploymentId")
    if not isinstance(deployment_id, str) or not _UUID.fullmatch(deployment_id):
        raise invalid_arguments("Invalid deploymentId format received. DeploymentId is a UUID")
    return deployment_id


def _summary(deployment: Deployment) -> Body:
    created = time.strftime(UTC_FORMAT, time.gmtime(deployment.created))
    return {"deploymentId": deployment.id, "status": deployment.status, "createdOn": created}


def _details(deployment: Deployment) -> Body:
    if deployment.detailed is None:
        return {}
    details: Body = {"detailedDeploymentStatus": deployment.detailed}
    if deployment.error:
        details |= {
            "deploymentErrorStack": deployment.error_stack,
            "deploymentErrorTypes": deployment.error_types,
            "deploymentFailureCause": deployment.error,
        }
    return {"deploymentStatusDetails": details}


def _folders(body: Body, field: str) -> list[Path]:
    """A folder that does not exist is found when the deployment runs, as by the nucleus."""
    value = body.get(field)
    return [Path(str(value))] if value else []


def _check_update_config(update_config: Any) -> None:
    """InvalidArgumentsError unless it is {component: {"MERGE": object, "RESET": list of pointers}}."""
    if not isinstance(update_config, Mapping):
        raise invalid_arguments("componentToConfiguration must be an object")
    for name, change in update_config.items():
        if not isinstance(change, Mapping) or set(change) - {"MERGE", "RESET"}:
            raise invalid_arguments(f"configuration of {name}: only MERGE and RESET are known")
        if not isinstance(change.get("MERGE", {}), Mapping) or not isinstance(change.get("RESET", []), list):
            raise invalid_arguments(f"configuration of {name}: MERGE is an object, RESET a list of JSON pointers")
