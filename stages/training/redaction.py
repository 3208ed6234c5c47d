"""Take secrets out of text before anybody sees it."""

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"KGAT_\w+")
_AUTHORIZATION = re.compile(r"\b(Bearer|Basic)\s+\S+", re.IGNORECASE)
_SIGNED_URL = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


def own_secrets(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What we sign in with."""
    return tuple(environment[name] for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY") if environment.get(name))


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without the secrets given, Kaggle tokens, authorization headers, and the queries that sign URLs."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    text = _AUTHORIZATION.sub(r"\1 [secret]", _TOKEN.sub("[secret]", text))
    return _SIGNED_URL.sub(r"\1?[signed]", text)
