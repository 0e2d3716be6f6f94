"""A local AWS IoT Greengrass core: a stand-in for development, never for production.

It deploys built recipes and artifacts, runs components as child processes, and speaks the nucleus' IPC protocol on a
Unix socket to unmodified clients. It checks no certificates and keeps secrets in a plain file. Run by root in the java
profile it starts components through sudo as another user, as the nucleus does (`users` says when it cannot).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localdev.core.deployment_model import Deployment, DeploymentError
    from localdev.core.engine import CoreError
    from localdev.core.lite import check_recipe
    from localdev.core.local import LocalCore
    from localdev.core.profiles import Profile

__all__ = ["CoreError", "Deployment", "DeploymentError", "LocalCore", "Profile", "check_recipe"]

_HOMES = {
    "CoreError": "engine",
    "Deployment": "deployment_model",
    "DeploymentError": "deployment_model",
    "LocalCore": "local",
    "Profile": "profiles",
    "check_recipe": "lite",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for: a command that talks to a core in another process need not wait for a core's modules."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
