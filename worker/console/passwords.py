"""Operators' passwords: kept as scrypt hashes, each with its parameters and salt."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode

SHORTEST = 12
"""Characters of a password."""
_N, _R, _P = 2**15, 8, 1
"""RFC 7914's parameters: 32 MB and some 0.1 s a guess."""
_MOST_MEMORY = 64 * 2**20


def hashed(password: str) -> str:
    """Return what is stored of a password; ValueError where it is too short."""
    if len(password) < SHORTEST:
        raise ValueError(f"a password has at least {SHORTEST} characters")
    salt = secrets.token_bytes(16)
    key = _scrypt(password, salt, _N, _R, _P)
    return f"scrypt${_N}${_R}${_P}${b64encode(salt).decode()}${b64encode(key).decode()}"


def right(password: str, stored: str | None) -> bool:
    """Whether a password is the stored one; takes as long where there is none."""
    _name, n, r, p, salt, key = (stored or _NOBODYS).split("$")
    found = _scrypt(password, b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, b64decode(key)) and stored is not None


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "replace"), salt=salt, n=n, r=r, p=p, maxmem=_MOST_MEMORY, dklen=32
    )


_NOBODYS = f"scrypt${_N}${_R}${_P}${b64encode(bytes(16)).decode()}${b64encode(bytes(32)).decode()}"
