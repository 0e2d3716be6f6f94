import sys

from edgeml.component import run
from serial_scraper import parse
from serial_scraper.component import SerialScraper
from serial_scraper.config import Config

if __name__ == "__main__":
    if sys.argv[1:2] == ["parse"]:
        raise SystemExit(parse.main(sys.argv[2:]))
    raise SystemExit(run(SerialScraper, Config))
