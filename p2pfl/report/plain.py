"""Text of others (names of peers, titles, reasons) made safe to show in a terminal, a log line or a page."""

import unicodedata

# Control characters (ANSI escapes, NUL, line breaks), formats (bidi marks, zero-width), halves of surrogate pairs,
# private and unassigned code points, and the two separators that break lines.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str) -> str:
    r"""Write every character that could move a cursor, turn the writing direction or stay invisible as its escape.

    A backslash is doubled, so that two different names never look the same. `plain("a\x1b[31m")` is `a\x1b[31m` in seven
    visible characters more. HTML, CSV and rich's `[markup]` have their own escapes, which come after this one.
    """
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if unicodedata.category(character) not in _UNSAFE:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
