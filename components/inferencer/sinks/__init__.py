"""Where results go. A kind is a module, and one line: FIELDS of each pipeline, or KINDS that a pipeline names itself.

Results are handed to the fields in this order, and then to what stands under `sinks`.
"""

FIELDS = (
    "local",  # local topics
    "telemetry",  # of a wind turbine: tasks.turbine.telemetry
    "iot_core",  # AWS IoT Core
    "crops",  # pictures of what was detected
    "events",  # what happens to objects; the last, because it tells those before it
)

KINDS = {  # the module, and its settings in the configuration
    "mqtt": "MqttSink",  # a broker on the LAN
    "webhook": "WebhookSink",  # HTTPS POST
    "stream_manager": "StreamManagerSink",  # AWS Greengrass Stream Manager, which exports to the cloud
}
