"""What two rows share that differ in particulars alone, worked out from their texts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

_PARTICULAR = re.compile(r"""['"].*|.*[/\\~*].*|.*\.\w{1,5}|[-+]?\d[\d.:,%]*\w{0,2}""")


def skeleton(typed: Sequence[str], answered: Sequence[str]) -> str:
    """Twelve hexadecimal digits, out of the words of the typed line and of the answer; the same in all shells.

    Words that stand in both texts are masked where they look like a path, a host, a number or quoted text; the
    words of the mistake stay as they are. This looks at the texts alone, so it also holds where a generator's
    groups are too fine.
    """
    shared = set(typed) & set(answered)
    masked = [
        # a word of letters alone, as most are, is no such thing
        "<value>" if not word.isalpha() and word in shared and _PARTICULAR.fullmatch(word) else word
        for word in answered
    ]
    mistake = [word for word in typed if word not in shared]
    return digest("\0".join([*masked, "", *mistake]))[:12]


def digest(text: str) -> str:
    """The sha256 of a text, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()
