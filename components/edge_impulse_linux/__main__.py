from edge_impulse_linux.component import EdgeImpulseLinux
from edge_impulse_linux.config import Config
from edgeml.component import run

if __name__ == "__main__":
    raise SystemExit(run(EdgeImpulseLinux, Config))
