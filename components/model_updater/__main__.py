from edgeml.component import run
from model_updater.component import ModelUpdater
from model_updater.config import Config

if __name__ == "__main__":
    raise SystemExit(run(ModelUpdater, Config))
