"""How a webhook is signed, and how its receiver knows that it is ours, whole, and not one that was sent before.

    X-Coursedub-Timestamp: 1767225600                      when this try was sent, unix seconds
    X-Coursedub-Signature: sha256=<hex of HMAC-SHA256(secret, timestamp + "." + body)>

A receiver refuses what is not signed with its secret, and what was signed more than `WINDOW` seconds ago. For what is sent again within the
window, and for retries, which are signed anew, it keeps the delivery's id (`X-Coursedub-Delivery`): the same id is the same message.
"""

from __future__ import annotations

import hashlib
import hmac
import time

TIMESTAMP = "X-Coursedub-Timestamp"
SIGNATURE = "X-Coursedub-Signature"
WINDOW = 300.0  # seconds between two clocks, and on the way
_SCHEME = "sha256="


class Forged(Exception):
    """The message is not what the holder of the secret has sent just now."""


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of the header `SIGNATURE`.

    >>> sign("secret", 1767225600, b"{}")[:20]
    'sha256=fa7eaa06bf97d'
    """
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return _SCHEME + mac.hexdigest()


def verify(secret: str, timestamp: str, signature: str, body: bytes, now: float | None = None, window: float = WINDOW) -> None:
    """
    Args:
        timestamp, signature: the headers as they came; empty where there is none.
        body: every byte as it came, before it is read as JSON.
        now: unix seconds; the clock's when None.

    Raises:
        Forged: it says in which way, for a log; the sender is told nothing of it.
        ValueError: there is no secret.
    """
    if not secret:
        raise ValueError("no secret to verify with")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise Forged("no time of sending")
    expected = sign(secret, int(timestamp), body)
    # As bytes: text beyond ASCII, which a forger may send, can't be compared.
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogateescape")):
        raise Forged("the signature is not that of the secret")
    if abs((time.time() if now is None else now) - int(timestamp)) > window:
        raise Forged("sent too long ago, or by another clock")
