"""Texts that would be more than text: names that lead out of a folder, cells that a spreadsheet computes."""

from __future__ import annotations

NAMES = [
    "", ".", "..", "../x", "..\\x", "/etc/passwd", "a/b", "a\\b", "a/../b", "~root", ".ssh", "-rf", "x\0y", "x\ny", "x\ry", "x\x1by",
    "C:x", "x:stream", "a*", "a?", "<a>", "a|b", 'a"b', "x" * 201, "ü" * 101, " x", "x ", "x.", "a\u202egpj", "a\u2028b", "a\ud800",
    "x.part", "x.manifest.json", "\ufeffx", "\u200b", "x\u00a0", "\t", "a\x7f", "a\x85b", "..%2f/..",
]  # fmt: skip
"""What is no base name of a file."""

CELLS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "  =1+1",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "=cmd|' /C calc'!A0",
]
"""What a spreadsheet takes for a formula when it opens a file of text."""

_SHAPES = [
    '=HYPERLINK("https://evil.test/{0}","bank")',
    "+{0}",
    "@SUM(A{0})",
    "=IMPORTXML(A{0},B1)",
    "-{0}+cmd|'/c calc'!A0",
]
FORMULAS = [shape.format(number) for number in range(40) for shape in _SHAPES]
"""What a spreadsheet computes when somebody types it."""
