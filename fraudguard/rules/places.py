"""Where each character of a YAML scalar stands in its file.

Knows YAML's scalar styles. YAML folds lines, strips indentation and resolves escapes, but keeps what is not blank,
in order; so the characters that are not blank are matched one by one.
"""

from collections.abc import Iterator
from typing import Final

import yaml

_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_BLANK_ESCAPES: Final = set(" \ttnvfrN_LP\n")


def scalar_places(text: str, node: yaml.ScalarNode) -> list[int]:
    """For each character of the scalar's value, and for its end, the offset in `text`.

    A blank is placed just behind the character before it.
    """
    written = _written(text, node)
    at = node.start_mark.index
    places = []
    for character in node.value:
        if not character.isspace():
            at = next(written)
        places.append(at)
        if not character.isspace():
            at += 1
    return [*places, at]


def _written(text: str, node: yaml.ScalarNode) -> Iterator[int]:
    """Offsets of the value's characters that are not blank, as the file has them."""
    at = node.start_mark.index
    if node.style in {"|", ">"}:
        at = text.index("\n", at)  # behind the indicators
    elif node.style:
        at += 1  # behind the quote
    while at < len(text):
        width, blank = 1, text[at].isspace()
        if node.style == "'" and text.startswith("''", at):
            width = 2
        elif node.style == '"' and text[at] == "\\":
            escape = text[at + 1]
            width = 2 + _HEX_DIGITS.get(escape, 0)
            blank = escape in _BLANK_ESCAPES or (width > 2 and chr(int(text[at + 2 : at + width], 16)).isspace())
        if not blank:
            yield at
        at += width
