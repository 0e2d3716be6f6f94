from edgeml.component import run
from monitor.component import Monitor
from monitor.config import Config

if __name__ == "__main__":
    raise SystemExit(run(Monitor, Config))
