"""Text of others in a terminal: shown, never obeyed."""

from __future__ import annotations

import unicodedata

_COMMANDS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode that a terminal obeys or can't show: controls, directions, lone surrogates, separators of lines."""

_JOINERS = "\u200c\u200d"
"""Of the category Cf, and part of words in several scripts and of emoji."""


def printable(text: str, keep: str = "") -> str:
    """The text with escapes in place of what a terminal would obey instead of showing, such as ESC; what `keep` has is left."""
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in _COMMANDS and one not in keep + _JOINERS
        else one
        for one in text
    )
