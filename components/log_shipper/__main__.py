from edgeml.component import run
from log_shipper.component import LogShipper
from log_shipper.config import Config

if __name__ == "__main__":
    raise SystemExit(run(LogShipper, Config))
