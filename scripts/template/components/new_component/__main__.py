from edgeml.component import run
from new_component.component import NewComponent
from new_component.config import Config

if __name__ == "__main__":
    raise SystemExit(run(NewComponent, Config))
