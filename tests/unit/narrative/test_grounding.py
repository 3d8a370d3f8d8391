"""What may leave of a narrative's text: no markup, no links but to evidence that there is, however it is cut."""

import html
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fraudguard.narrative.grounding import CHARS_MAX, Discard, Grounding, Link, Piece, Text

HOSTILE = st.text(alphabet="ab1239 \n,，[]【】()<>&\"'!`*#/:\u202e\u200b\x00think", max_size=200)


def said(*parts: str, numbers: tuple[int, ...] = (1, 2, 3)) -> list[Piece]:
    """All that goes out, texts joined and what was discarded left out."""
    grounding = Grounding(numbers)
    pieces = [piece for part in parts for piece in grounding.feed(part)] + grounding.end()
    joined: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Discard):
            joined = []
        elif isinstance(piece, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + piece.text)
        else:
            joined.append(piece)
    return joined


def test_numbers_of_items_become_links_and_others_vanish() -> None:
    """Alone, in lists, in Chinese brackets; a number that no item has is dropped without a trace."""
    assert said("The payee is new [2].") == [Text("The payee is new "), Link(2), Text(".")]
    assert said("可疑【1】，[2，3][9] 完") == [Text("可疑"), Link(1), Text("，"), Link(2), Link(3), Text(" 完")]
    assert said("a [4, 1, 99] b") == [Text("a "), Link(1), Text(" b")]


def test_a_link_cut_anywhere_is_the_same_link() -> None:
    """Pieces end where tokens end."""
    assert said("new [", "1", ", 2", "] yes") == [Text("new "), Link(1), Link(2), Text(" yes")]
    assert said("new [1") == [Text("new (1")]


def test_markup_is_text() -> None:
    """HTML is escaped; of a Markdown image, link or reference no bracket is left; invisible characters go."""
    assert said("<img src=x onerror=alert(1)> & so") == [Text("&lt;img src=x onerror=alert(1)&gt; &amp; so")]
    assert said("![x](http://evil.example/?q=1) [click](javascript:x)") == [
        Text("!(x)(http://evil.example/?q=1) (click)(javascript:x)")
    ]
    assert said("a\u202eb\u200b\x07c") == [Text("abc")]


def test_thoughts_are_not_told() -> None:
    """In tags, cut anywhere, unfinished, or begun in the server's template so that only their end is sent."""
    assert said("<thi", "nk>the user <b>says [1]</thi", "nk>\n\nHe paid [1]") == [Text("\n\nHe paid "), Link(1)]
    assert said("I should not [2]", "</think>", "He paid") == [Text("He paid")]
    assert said("<think>for ever") == []


def test_a_text_ends() -> None:
    """At CHARS_MAX characters or as many links, and says that it is full."""
    grounding = Grounding([1])
    pieces = [piece for _ in range(CHARS_MAX) for piece in grounding.feed("abc[1]")]
    assert grounding.full
    assert sum(len(piece.text) if isinstance(piece, Text) else 1 for piece in pieces) == CHARS_MAX


@given(text=HOSTILE, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_nothing_dangerous_leaves_however_it_is_cut(text: str, cuts: list[int]) -> None:
    """Cutting changes nothing; no tag, no bracket, no unknown number, no control character but line breaks."""
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[a:b] for a, b in pairwise(places)]
    pieces = said(*parts)
    assert pieces == said(text)
    for piece in pieces:
        if isinstance(piece, Link):
            assert piece.number in (1, 2, 3)
        elif isinstance(piece, Text):
            assert not set(piece.text) & set("<>[]\"'\u202e\u200b\x00")
            assert html.escape(html.unescape(piece.text)) == piece.text
