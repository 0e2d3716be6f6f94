"""Types of configuration fields that several components share: what can never work is refused as configuration."""

from typing import Annotated

from msgspec import Meta

# `$` alone also matches before a last line feed, hence `(?!\n)`: JSON Schema's `$` does not, and both read these.
# AWS IoT Core: at most 7 slashes and 256 bytes; a publish may not hold wildcards. {placeholders} are allowed.
_TOPIC = r"^[^/+#\x00]*(/[^/+#\x00]*){0,7}$(?!\n)"

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,48}$(?!\n)")]
Topic = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TOPIC)]
TopicOrNone = Annotated[str, Meta(max_length=256, pattern=_TOPIC)]  # empty: the default, or none
# Amazon S3: 3 to 63 characters, lower case; empty where nothing is uploaded.
BucketOrNone = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$(?!\n)")]
KeyPrefix = Annotated[str, Meta(max_length=512, pattern=r"^([^/\x00-\x1f]+(/[^/\x00-\x1f]+)*)?$(?!\n)")]
# Printable ASCII: a blank or a control character can never be asked for, it is written as %XX.
HttpUrl = Annotated[str, Meta(max_length=2048, pattern=r"^https?://[!-~]+$(?!\n)")]
