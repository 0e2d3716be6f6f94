from edgeml.component import run
from inferencer.component import Inferencer
from inferencer.config import Config

if __name__ == "__main__":
    raise SystemExit(run(Inferencer, Config))
