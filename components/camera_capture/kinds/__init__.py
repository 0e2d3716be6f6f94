"""Where frames come from. A kind is a module here, and one line: the module, and its settings in the configuration."""

KINDS = {
    "device": "DeviceCamera",  # a camera of the machine, by V4L2
    "file": "FileCamera",  # a video file
    "images": "ImagesCamera",  # a folder of pictures
    "rtsp": "RtspCamera",  # a network camera, and whatever else FFmpeg reads by its URL
    "http": "HttpCamera",  # MJPEG streams and snapshots
    "gstreamer": "GStreamerCamera",  # a pipeline of gst-launch-1.0
    "rpicam": "RpicamCamera",  # the camera of a Raspberry Pi, by rpicam-vid
    "test_pattern": "PatternCamera",  # no camera at all
}
