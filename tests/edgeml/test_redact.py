"""No secret of a URL is shown, however people write it, wherever a text quotes it."""

import io
import logging
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml import redact
from edgeml.health import Health
from edgeml.log import ByLevel

# What a person writes, and what may be shown of it.
URLS = {
    "rtsp://192.0.2.7:554/one": "rtsp://192.0.2.7:554/one",
    "rtsp://root:s3cret@192.0.2.7/one": "rtsp://192.0.2.7/one",
    "rtsp://root:s3c@ret@192.0.2.7/one": "rtsp://192.0.2.7/one",
    "rtsp://root:s3c/ret@192.0.2.7": "rtsp://192.0.2.7",
    "rtsp://root:s3c#ret@192.0.2.7/one": "rtsp://192.0.2.7/one",
    "rtsp://root:s3c ret@192.0.2.7/one": "rtsp://192.0.2.7/one",
    "rtsp://root:s3c?ret@192.0.2.7/one": "rtsp://192.0.2.7/one",
    "rtsp://root:s3c?a=ret@192.0.2.7/one": "rtsp://***",
    "http://192.0.2.7/video?loginuse=root&loginpas=s3cret": "http://192.0.2.7/video",
    "http://192.0.2.7/video?usr=root&p=s3c@ret": "http://192.0.2.7/video",
    "http://cam/video?usr=root@s3cret&p=x": "http://***",
    "http://[2001:db8::1]:8080/v?s3cret": "http://[2001:db8::1]:8080/v",
    "rtsp://192.0.2.7/user=root&password=s3cret&channel=1.sdp": "rtsp://192.0.2.7/user=***&password=***&channel=***",
    "rtsp://root:s3cret": "rtsp://***",
    "root:s3cret@192.0.2.7/one": "192.0.2.7/one",
    "https://b.s3.amazonaws.com/k?X-Amz-Signature=s3cret&X-Amz-Expires=9": "https://b.s3.amazonaws.com/k",
    "http://h/\n\x1b[1m": "http://h/..[1m",
}
SECRETS = ("root", "s3c", "ret", "s3cret")


@pytest.mark.parametrize("url", URLS, ids=range(len(URLS)))
def test_of_a_url_scheme_host_and_path_are_shown(url: str) -> None:
    assert redact.url(url) == URLS[url]
    assert redact.url(URLS[url]) == URLS[url]  # once is enough
    told = redact.text(f"cannot open {url}: it timed out", url)
    assert not any(secret in told for secret in SECRETS)
    assert "timed out" in told


@pytest.mark.parametrize("url", [u for u in URLS if "://" in u and "usr=root@" not in u], ids=str)
def test_a_text_whose_urls_nobody_knows_hides_them_as_well(url: str) -> None:
    told = redact.text(f"first line\ncannot open {url} now")
    assert not any(secret in told for secret in SECRETS)
    assert told.startswith("first line\ncannot open ")


@pytest.mark.parametrize("where", ["root:s3cret@cam:554/x", "rtsp:/root:s3c@ret@cam/x", "//root:s3cret@[::1]/x"])
def test_a_url_without_a_whole_scheme_is_one_all_the_same(where: str) -> None:
    for told in (redact.text(f"cannot open '{where}'"), redact.text(f"x={where}, y", where), redact.location(where)):
        assert not any(secret in told for secret in SECRETS), told
    assert redact.text("[rtsp @ 0x55] at 12:30, to me@example.com") == "[rtsp @ 0x55] at 12:30, to me@example.com"


@pytest.mark.parametrize(
    ("pipeline", "shown"),
    [
        ("libcamerasrc", "libcamerasrc"),
        ("v4l2src device=/dev/video0 ! video/x-raw,width=640", "v4l2src device=/dev/video0 ! video/x-raw,width=640"),
        (
            "rtspsrc location=rtsp://192.0.2.7/a user-id=root user-pw=s3cret ! decodebin",
            "rtspsrc location=rtsp://192.0.2.7/a user-id=*** user-pw=*** ! decodebin",
        ),
        ('rtspsrc location="rtsp://root:s3c ret@192.0.2.7/a" ! d', "rtspsrc location=rtsp://192.0.2.7/a ! d"),
        ("rtspsrc location=rtsp://root:s3c big ret@192.0.2.7/a ! d", "rtspsrc location=*** ! d"),
        ("souphttpsrc location=http://h.example/v?s3cret=1 ! d", "souphttpsrc location=http://h.example/v ! d"),
        ('souphttpsrc extra-headers="h,Authorization=s3cret" ! d', "souphttpsrc extra-headers=*** ! d"),
        ("srtsrc uri=srt://h:9 passphrase='s3c ret", "srtsrc uri=srt://h:9 passphrase=*** ***"),
    ],
    ids=range(8),
)
def test_a_pipeline_shows_its_elements(pipeline: str, shown: str) -> None:
    assert redact.pipeline(pipeline) == shown
    assert redact.location(pipeline) == shown
    assert not any(secret in redact.text(f"erroneous pipeline: {pipeline}", pipeline) for secret in ("s3c", "ret@"))


def test_pieces_of_a_known_url_are_found_where_they_stand_alone() -> None:
    url = "http://root:s3c ret@192.0.2.7/v?usr=adm1n&p=top%20secret"
    text = redact.text(
        "Max retries exceeded with url: /v?usr=adm1n&p=top%20secret; 'top secret' refused for s3c%20ret", url
    )
    assert not any(secret in text for secret in ("adm1n", "top", "s3c"))


def test_errors_of_http_libraries_lose_their_queries() -> None:
    assert redact.text("Max retries exceeded with url: /api?f=1,2&key=s3cret (Caused by X)") == (
        "Max retries exceeded with url: /api?*** (Caused by X)"
    )
    assert redact.text("no control characters. '/a?X-Amz-Signature=s3 cret' (found ' ')") == (
        "no control characters. '/a?***' (found ' ')"
    )
    assert redact.text('no property "x" user-pw=s3cret user-id="ro ot", what now? a=b') == (
        'no property "x" user-pw=*** user-id=***, what now? a=b'
    )


def test_words_of_python_that_quote_half_a_password_are_hidden() -> None:
    for url in ("http://root:s3c/ret@h/", "http://root:s3c#ret@h/"):
        with pytest.raises(ValueError, match="s3c") as caught:
            _ = urlsplit(url).port
        assert "s3c" not in redact.text(f"ValueError: {caught.value}")
    assert redact.text("nonnumeric port: 's3c'") == "nonnumeric port: ***"


def test_plain_texts_and_paths_stay_as_they_are() -> None:
    for text in ("a = b? no", "/opt/clips/a@b.mp4", "key=value camera=c", "s3://bucket/key is full", "1 @ 2"):
        assert redact.text(text) == text
        assert redact.text(text, "/opt/clips/a@b.mp4") == text
    assert redact.location("/opt/clips/a@b.mp4") == "/opt/clips/a@b.mp4"


_WORD = st.text("abcXYZ019@/#?:;&=% .~!", min_size=1, max_size=8)


@given(_WORD, _WORD, st.sampled_from(["one", "a/b.sdp", ""]))
def test_whatever_the_password_it_is_not_shown(before: str, after: str, path: str) -> None:
    secret = f"{before}QQQ{after}"
    url = f"rtsp://user:{secret}@192.0.2.7/{path}"
    for shown in (redact.url(url), redact.text(f"x {url} y", url), redact.location(url)):
        assert "QQQ" not in shown
        assert "user" not in shown


@given(_WORD.filter(lambda w: "@" not in w), _WORD)
def test_whatever_the_query_it_is_not_shown(name: str, value: str) -> None:
    url = f"http://192.0.2.7:80/v?{name}=QQQ{value}"
    assert "QQQ" not in redact.url(url)
    assert "QQQ" not in redact.text(f"x {url} y", url)


def test_log_health_and_problems_hide_what_nobody_thought_of() -> None:
    url = "rtsp://root:s3cret@192.0.2.7/one?p=s3cret"
    stream = io.StringIO()
    handler, logger = ByLevel(stream, stream), logging.getLogger("edgeml.problems")
    logger.addHandler(handler)
    health = Health("edgeml.X", "1")
    try:
        health.note("a", f"at {url}")
        health.error(ValueError(url))
        health.problems.found("source_failed", "a", f"at {url}")
        try:
            raise ValueError(url)
        except ValueError:
            logger.exception("failed \udcff %s", url)
    finally:
        logger.removeHandler(handler)
    told = stream.getvalue() + repr(health.report())
    assert "s3cret" not in told
    assert "root" not in told
    assert "failed \\udcff rtsp://192.0.2.7/one" in told  # and no surrogate swallows its line
    assert "Traceback" in told


@pytest.mark.parametrize(
    "piece",
    ["?", "a", "a://", "a-", "?a=b", "x?a=b ", "@", "user-", "x?a=b\n'", 'pwd="', "a://?x=@", "a://=/", "1.", "'"],
)
def test_the_time_grows_with_the_text_and_no_faster(piece: str) -> None:
    def spent(count: int) -> float:
        text = "a://" + piece * count + "@?x="
        best = 9.0
        for _ in range(3):
            began = time.process_time()
            redact.text(text)
            best = min(best, time.process_time() - began)
        return best

    assert spent(16_000) < 100 * spent(1000) + 0.05  # squared it would be 256 times
