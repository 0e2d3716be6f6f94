"""What scripts/look does: asks a device through AWS IoT Core, fetches what it has put into S3, shows it.

What a device says is not trusted: it is bounded, and shown as plain text.
"""


class LookError(Exception):
    """There is no answer, or none that can be read; the text says why and what to do."""
