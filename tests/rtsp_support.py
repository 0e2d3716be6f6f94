"""An RTSP camera: a server for one client that sends what it was given, over TCP or UDP. Source: RFC 2326, RFC 3550."""

import base64
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av

from hostile_http import Behaviour

NAMES = {"h264": "H264", "hevc": "H265", "mjpeg": "JPEG"}


@dataclass(frozen=True)
class Recorded:
    """A clip as packets of RTP, each with when it is due in seconds, and the description of its session."""

    packets: tuple[tuple[float, bytes], ...]
    sdp: bytes


def recorded(clip: Path) -> Recorded:
    """By FFmpeg's own packetizer, whose pieces are written one by one."""
    pieces: list[tuple[float, bytes]] = []

    class Sink:
        at = 0.0

        def write(self, data: Any) -> int:
            if not 200 <= data[1] <= 204:  # RTCP
                pieces.append((self.at, bytes(data)))
            return len(data)

    sink = Sink()
    options = {"packetsize": "1200", "flush_packets": "1"}
    with av.open(str(clip)) as source, av.open(sink, "w", "rtp", container_options=options) as output:
        video = source.streams.video[0]
        copy = output.add_stream_from_template(video)
        kind = NAMES[video.codec_context.codec.canonical_name]
        for packet in source.demux(video):
            if packet.size:
                sink.at = float((packet.dts or 0) * (video.time_base or 0))
                packet.stream = copy
                output.mux(packet)
    number = pieces[0][1][1] & 0x7F
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 0.0.0.0", "t=0 0", f"m=video 0 RTP/AVP {number}"]
    lines += [f"a=rtpmap:{number} {kind}/90000"] if number >= 96 else []
    lines += [f"a=fmtp:{number} packetization-mode=1{_parameters(video)}"] if kind == "H264" else []
    return Recorded(tuple(pieces), "\r\n".join([*lines, "a=control:track", ""]).encode())


def _parameters(video: Any) -> str:
    """SPS and PPS, as SDP has them, out of MP4's avcC."""
    data = bytes(video.codec_context.extradata or b"")
    if not data.startswith(b"\x01"):
        return ""
    length = int.from_bytes(data[6:8], "big")
    at = 8 + length + 1
    more = int.from_bytes(data[at : at + 2], "big")
    return ";sprop-parameter-sets=" + ",".join(
        base64.b64encode(one).decode() for one in (data[8 : 8 + length], data[at + 2 : at + 2 + more])
    )


def told(packets: Iterable[tuple[float, bytes]], times: Callable[[float], float]) -> Iterator[tuple[float, bytes]]:
    """Packets of RTP whose times, in seconds, are what `times` makes of the right ones."""
    for at, data in packets:
        stamp = round(times(at) * 90_000) & 0xFFFFFFFF
        yield at, data[:4] + struct.pack("!I", stamp) + data[8:]


def plays(sdp: bytes, packets: Iterable[tuple[float, bytes]], *, haste: float = 1.0, ends: bool = True) -> Behaviour:
    """Answers as a camera does, sends the packets when they are due, `haste` times as fast, and hangs up or waits."""

    def behave(sock: socket.socket, ended: threading.Event) -> None:
        target: tuple[str, int] | None = None
        data = b"OPTIONS rtsp://x RTSP/1.0\r\nCSeq: 1\r\n\r\n"  # which the server has read already
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.bind(("127.0.0.1", 0))
            while True:
                while b"\r\n\r\n" not in data:
                    if not (piece := sock.recv(65536)):
                        return
                    data += piece
                request, _, data = data.partition(b"\r\n\r\n")
                text = request.decode("latin-1")
                number = re.findall(r"CSeq: *(\d+)", text)[0]
                fields, body = [f"CSeq: {number}", "Session: 1"], b""
                if text.startswith(("OPTIONS", "DESCRIBE")):  # whoever asks first may have asked for it
                    body = sdp
                    fields += ["Content-Type: application/sdp"]
                elif text.startswith("SETUP"):
                    if wanted := re.search(r"client_port=(\d+)", text):
                        target = ("127.0.0.1", int(wanted[1]))
                        ports = f"client_port={wanted[1]};server_port={udp.getsockname()[1]}"
                        fields += [f"Transport: RTP/AVP/UDP;unicast;{ports}"]
                    else:
                        fields += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1"]
                head = "\r\n".join(["RTSP/1.0 200 OK", *fields, f"Content-Length: {len(body)}", "", ""])
                sock.sendall(head.encode() + body)
                if text.startswith("PLAY"):
                    break
            began = time.monotonic()
            for at, packet in packets:
                if ended.wait(max(0.0, began + at / haste - time.monotonic())):
                    return
                if target is not None:
                    udp.sendto(packet, target)
                else:
                    sock.sendall(b"$\0" + struct.pack("!H", len(packet)) + packet)
            if not ends:
                ended.wait(30)

    return behave
