"""Where samples come from. A kind is a module here, and one line: the module, and its settings in the configuration."""

KINDS = {
    "camera": "CameraSource",  # frames of a camera, used in place in its ring
    "request": "RequestSource",  # pictures named in requests, each answered
    "topic": "TopicSource",  # numbers on a local topic
    "mqtt": "MqttSource",  # numbers from a local broker
    "timer": "TimerSource",  # a file or camera, every so often
    "detections": "DetectionsSource",  # what another pipeline has detected, cut out of its pictures
    "caller": "CallerSource",  # rows of a file or samples of a topic, so many times per second
}
