"""The certificates of the embedded broker's TLS listener: an authority of its own, and a certificate for the loopback address."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trunkline.bus.embedded.running import write_private
from trunkline.core.errors import UnavailableError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateBuilder

_VALID = dt.timedelta(days=3650)
_RENEW_BEFORE = dt.timedelta(days=30)


@dataclass(frozen=True, slots=True)
class _Issued:
    key: EllipticCurvePrivateKey
    certificate: Certificate


def ensure_certificates(folder: Path) -> Path:
    """The path of the authority's certificate, which clients trust.

    `server.pem` beside it holds the broker's key and chain. Both are made once and again when they near their end. The
    authority's key is not kept: nobody else's certificate can ever be signed by it.
    """
    authority, server = folder / "ca.pem", folder / "server.pem"
    try:
        from cryptography import x509
    except ImportError as error:
        raise UnavailableError(
            "TLS on the embedded broker needs the Python package cryptography",
            hint="install trunkline[salesforce] or cryptography",
            code="embedded.tls",
        ) from error
    if authority.exists() and server.exists():
        ends = x509.load_pem_x509_certificate(authority.read_bytes()).not_valid_after_utc
        if ends - _RENEW_BEFORE > dt.datetime.now(dt.UTC):
            return authority
    issuer = _issue("Trunkline embedded broker CA", None)
    broker = _issue("localhost", issuer)
    write_private(authority, _pem(issuer.certificate))
    write_private(server, _key_pem(broker.key) + _pem(broker.certificate) + _pem(issuer.certificate))
    return authority


def _issue(name: str, issuer: _Issued | None) -> _Issued:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(
            x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        builder = _for_loopback(builder, issuer)
    return _Issued(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def _for_loopback(builder: CertificateBuilder, issuer: _Issued) -> CertificateBuilder:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    return (
        builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )


def _pem(certificate: Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
