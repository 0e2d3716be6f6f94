from camera_capture.component import CameraCapture
from camera_capture.config import Config
from edgeml.component import run

if __name__ == "__main__":
    raise SystemExit(run(CameraCapture, Config))
