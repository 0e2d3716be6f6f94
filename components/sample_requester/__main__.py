from edgeml.component import run
from sample_requester.component import SampleRequester
from sample_requester.config import Config

if __name__ == "__main__":
    raise SystemExit(run(SampleRequester, Config))
