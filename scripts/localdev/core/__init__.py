"""A local AWS IoT Greengrass core: a stand-in for development, never for production.

It deploys built recipes and artifacts, runs components as child processes, and speaks the nucleus' IPC protocol on a
Unix socket to unmodified clients. It checks no certificates and keeps secrets in a plain file. Run by root in the java
profile it starts components through sudo as another user, as the nucleus does (`users` says when it cannot).
"""

from localdev.core.deployment_model import Deployment, DeploymentError
from localdev.core.engine import CoreError
from localdev.core.lite import check_recipe
from localdev.core.local import LocalCore
from localdev.core.profiles import Profile

__all__ = ["CoreError", "Deployment", "DeploymentError", "LocalCore", "Profile", "check_recipe"]
