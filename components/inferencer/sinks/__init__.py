"""Where results go: local topics, AWS IoT Core, Amazon S3. A kind is a module, and one line: its field of a pipeline.

Results are handed to them in this order.
"""

FIELDS = (
    "local",  # local topics
    "telemetry",  # of a wind turbine: tasks.turbine.telemetry
    "iot_core",  # AWS IoT Core
    "crops",  # pictures of what was detected
)
