"""Making the device known to the project of the API key."""

import logging
from dataclasses import dataclass, field
from urllib.parse import quote

from edge_impulse_linux.identity import DEVICE_TYPE, Identity
from edgeml.edge_impulse.studio import Studio
from edgeml.errors import StudioError
from edgeml.log import kv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Project:
    id: int
    hmac_key: str = field(repr=False)


def find_project(studio: Studio) -> Project:
    """The project of the API key, and the key that its samples are signed with. Raises StudioError."""
    project = studio.project()
    return Project(project, str(studio.get(f"{project}/devkeys/hmac").get("hmacKey") or ""))


def register(studio: Studio, project: Project, identity: Identity) -> None:
    """Add the device if it is new, and give it its name if nobody has given it one. Raises StudioError."""
    body = {"deviceId": identity.id, "deviceType": DEVICE_TYPE, "ifNotExists": True}
    studio.post(f"{project.id}/devices/create", body)
    device = quote(identity.id, safe="")
    known = studio.get(f"{project.id}/device/{device}").get("device") or {}
    if identity.name and known.get("name", identity.id) == identity.id:
        try:
            studio.post(f"{project.id}/devices/{device}/rename", {"name": identity.name})
        except StudioError as error:  # a name is for people; samples go to the id
            log.warning("device keeps its id as its name %s", kv(reason=error))
