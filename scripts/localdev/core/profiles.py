"""The two kinds of Greengrass core that the stand-in can be."""

from enum import StrEnum

from localdev.core.wire import MAX_FRAME_BYTES


class Profile(StrEnum):
    """`java`: the Greengrass nucleus. `lite`: Greengrass Nucleus Lite, which is smaller and stricter."""

    JAVA = "java"
    LITE = "lite"

    @property
    def frame_limit(self) -> int:
        """Bytes of a frame above which the connection is closed."""
        return 10_000 if self is Profile.LITE else MAX_FRAME_BYTES


CLI = "aws.greengrass.Cli"
"""Principal of scripts/core. It may do everything, in both profiles."""

LITE_OPERATIONS = frozenset({
    "PublishToTopic",
    "SubscribeToTopic",
    "PublishToIoTCore",
    "SubscribeToIoTCore",
    "GetConfiguration",
    "UpdateConfiguration",
    "SubscribeToConfigurationUpdate",
    "UpdateState",
    "RestartComponent",
    "CreateLocalDeployment",
    "ValidateAuthorizationToken",
})  # fmt: skip
"""What Nucleus Lite offers to components."""

PLUGIN_OPERATIONS = frozenset({
    "GetSecretValue",
    "GetThingShadow",
    "UpdateThingShadow",
    "DeleteThingShadow",
    "ListNamedShadowsForThing",
    "SubscribeToCertificateUpdates",
    "VerifyClientDeviceIdentity",
    "GetClientDeviceAuthToken",
    "AuthorizeClientDeviceAction",
})  # fmt: skip
"""Operations of the Java nucleus' model that plugins serve. It answers outside its model to what is not in it."""
