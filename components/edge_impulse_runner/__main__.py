from edge_impulse_runner.component import EdgeImpulseRunner
from edge_impulse_runner.config import Config
from edgeml.component import run

if __name__ == "__main__":
    raise SystemExit(run(EdgeImpulseRunner, Config))
