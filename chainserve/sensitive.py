"""Which configurable fields no caller may set unless the chain's author says so."""

import re

_SENSITIVE = re.compile(
    r"api_?key|api_?token|access_?key|private_?key|secret|passw|(^|_)pwd|credential|bearer"
    r"|authorization|headers|base_?url|api_?base|endpoint|proxy|dsn|connection_?string|webhook"
    r"|(access|auth|session)_?token|(^|[_/])(auth|token|key|url|uri|host)$",
    re.IGNORECASE,
)
"""Names of configurable fields that choose whose money is spent or where data goes."""


def is_sensitive(name: str) -> bool:
    """Tell whether a field's name looks like a key, or like an address."""
    return _SENSITIVE.search(name.replace("-", "_")) is not None
