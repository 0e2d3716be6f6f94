"""The TLS of a page that leaves the device: a certificate that is given, or one that the Monitor makes for itself."""

import datetime
import hashlib
import ipaddress
import ssl
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgeml.clock import EARLIEST
from edgeml.files import read_regular, write_atomic
from monitor.errors import AccessError
from monitor.private import is_private

DAY_S = 86400.0
LASTS_S, RENEWED_S = 800 * DAY_S, 700 * DAY_S  # Apple's browsers take no certificate of more than 825 days
MAX_PEM = 1 << 20
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def given(certificate: Path, key: Path) -> tuple[ssl.SSLContext, str]:
    """TLS with a certificate (and its chain) and a key in PEM files; its fingerprint. Raises AccessError."""
    try:
        mode = key.stat().st_mode
        if not stat.S_ISREG(mode) or mode & 0o007:
            raise AccessError(f"{key}: expected a file that others may not read, found mode {stat.filemode(mode)}")
        return _context(certificate, key), fingerprint(read_regular(certificate, MAX_PEM))
    except OSError as error:
        raise AccessError(f"{error.filename or certificate}: {error.strerror}") from error


def own(file: Path, hosts: list[str]) -> tuple[ssl.SSLContext, str]:
    """As `given`, with a certificate for `hosts` in `file` that is made where there is none, or an old one.

    Raises AccessError.
    """
    try:
        if not is_private(file) or _is_old(file):
            write_atomic(file, _made(hosts), mode=0o600)
        return _context(file, file), fingerprint(read_regular(file, MAX_PEM, follow=False))
    except OSError as error:
        raise AccessError(f"{file}: {error.strerror}") from error


def fingerprint(pem: bytes) -> str:
    """SHA-256 of the first certificate in `pem`, which has one, as browsers show it."""
    text = pem.decode(errors="replace")
    der = ssl.PEM_cert_to_DER_cert(text[text.index(BEGIN) : text.index(END) + len(END)])
    return hashlib.sha256(der).digest().hex(":").upper()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")  # never asks on a terminal
    except ssl.SSLError as error:
        raise AccessError(
            f"{certificate}: expected a certificate in PEM, and in {key} its key: {error.reason}"
        ) from error
    return context


def _is_old(file: Path) -> bool:
    """By the time it was made at; where the clock is not set yet, nothing is old."""
    age = time.time() - file.stat().st_mtime
    return time.time() > EARLIEST and not -DAY_S < age < RENEWED_S


def _made(hosts: list[str]) -> bytes:
    """A self-signed certificate and its key. `cryptography` is loaded for it alone, once in two years."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edgeml.Monitor")])
    begin = datetime.datetime.fromtimestamp(max(time.time(), EARLIEST) - DAY_S, datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(seconds=LASTS_S))
        .add_extension(x509.SubjectAlternativeName([_named(host) for host in dict.fromkeys(hosts)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM) + private


def _named(host: str) -> Any:
    from cryptography import x509

    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)
