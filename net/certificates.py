"""Says in a sentence why a TLS connection failed: which names, which dates, which authority."""

import ssl
from typing import Final

from cryptography import x509

#: Codes of the verification (``X509_V_ERR_…`` in OpenSSL).
_UNKNOWN_ISSUER: Final = frozenset({2, 7, 20, 21, 27})
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = 18
_SELF_SIGNED_AUTHORITY: Final = 19
_OTHER_NAME: Final = frozenset({62, 64})
#: Reasons of OpenSSL by which the server does not speak TLS at all, or no version that both know.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_NO_VERSION: Final = frozenset(
    {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "NO_PROTOCOLS_AVAILABLE"}
)
#: Names that a message lists, and their longest length together.
_NAMES: Final = 5
_LONGEST: Final = 200


def why_not(error: Exception, *, host: str, certificate: bytes | None) -> str:
    """Return the cause of a failed handshake as a sentence.

    Args:
        error: of the handshake.
        host: the name that the certificate must have.
        certificate: what the server shows, in DER; None if it is not known.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(error, host, _parsed(certificate))
    if isinstance(error, ssl.SSLError) and error.reason in _NOT_TLS:
        return "The server does not speak TLS on this port."
    if isinstance(error, ssl.SSLError) and error.reason in _NO_VERSION:
        return "The server speaks no version of TLS that is permitted (1.2 or 1.3)."
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "The server closed the connection during the TLS handshake."
    reason = getattr(error, "reason", None)
    return f"The TLS handshake failed ({reason})." if reason else "The TLS handshake failed."


def _unverified(
    error: ssl.SSLCertVerificationError, host: str, certificate: x509.Certificate | None
) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        end = certificate and f" on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        return f"The certificate of the server expired{end or ''}."
    if code == _NOT_YET_VALID:
        begin = certificate and f" before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        return f"The certificate of the server is not valid{begin or ' yet'}."
    if code in _OTHER_NAME:
        names = _names(certificate) if certificate else ""
        return f"The certificate of the server is not for {host}" + (
            f": it is for {names}." if names else "."
        )
    if code == _SELF_SIGNED:
        return "The certificate of the server is self-signed, and not trusted."
    if code == _SELF_SIGNED_AUTHORITY or code in _UNKNOWN_ISSUER:
        issuer = certificate and _shown(certificate.issuer.rfc4514_string())
        return (
            f"The authority that issued the certificate of the server{f' ({issuer})' if issuer else ''} is not "
            "trusted, or the server does not send the intermediate certificates."
        )
    return f"The certificate of the server is not valid: {error.verify_message}."


def _parsed(certificate: bytes | None) -> x509.Certificate | None:
    if certificate is None:
        return None
    try:
        return x509.load_der_x509_certificate(certificate)
    except ValueError:
        return None


def _names(certificate: x509.Certificate) -> str:
    """Return the names in a certificate, the first few of them."""
    try:
        extension = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        return _shown(certificate.subject.rfc4514_string())
    names = [
        *extension.get_values_for_type(x509.DNSName),
        *map(str, extension.get_values_for_type(x509.IPAddress)),
    ]
    more = len(names) - _NAMES
    return _shown(", ".join(names[:_NAMES])) + (f" and {more} more" if more > 0 else "")


def _shown(text: str) -> str:
    """Return a text that the server chose, as a message may have it."""
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _LONGEST else printable[:_LONGEST] + "…"
