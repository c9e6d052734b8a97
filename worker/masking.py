"""What no log line and no error text may show: mobile numbers, keys, passwords. A leaf.

Numbers are known by their form; keys and passwords are told to :func:`hide` by whoever reads the settings.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, quote_plus, unquote, urlsplit

from worker.portability.msisdn import mask_all

HIDDEN = "[hidden]"
_SHORTEST = 12
"""Shorter secrets are words, such as the password `guest`: they are hidden in URLs only."""
_IN_URL = re.compile(r"(?<=://)([^\s/@:]*):[^\s/@]+(?=@)")
_IN_DSN = re.compile(r"(?i)\b(password|apikey)=[^\s&'\"]+")

_secrets: dict[str, None] = {}


def hide(*secrets: str) -> None:
    """Never show these, nor the ways in which repr, JSON and URLs write them."""
    for secret in secrets:
        if len(secret) >= _SHORTEST:
            forms = (
                secret,
                repr(secret)[1:-1],
                json.dumps(secret)[1:-1],
                quote(secret, ""),
                quote_plus(secret),
            )
            _secrets.update(dict.fromkeys(forms))


def hide_password(url: str) -> None:
    """Never show the password in this URL, as it is written there or meant."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:  # whoever uses the URL says what is wrong with it
        return
    hide(password, unquote(password))


def masked(text: str) -> str:
    """``text`` without numbers, keys and passwords."""
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    if "=" in text:
        text = _IN_DSN.sub(rf"\1={HIDDEN}", text)
    if "://" in text:
        text = _IN_URL.sub(rf"\1:{HIDDEN}", text)
    return mask_all(text)
