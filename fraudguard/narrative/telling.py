"""A narrative from beginning to end: by the configured server, or by the template where there is none or it fails.

Knows both ways and what may leave of either; writes nothing down. Whoever listens gets a whole narrative in any case.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from fraudguard.narrative.grounding import Discard, Grounding, Piece, Text
from fraudguard.narrative.items import Item
from fraudguard.narrative.prompt import Language, messages
from fraudguard.narrative.server import NarrativeServer, NoNarrativeError
from fraudguard.narrative.template import narrative

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Who tells what follows. model: by its name; why: a model does not, a word for programs."""

    by: Literal["model", "template"]
    model: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows. complete: False where it was cut at its longest."""

    complete: bool


async def tell(
    items: Sequence[Item], language: Language, server: NarrativeServer | None
) -> AsyncGenerator[Source | Piece | End, None]:
    """A Source, its pieces and an End; after a Discard all pieces before it are void, and another Source may follow."""
    why = "no_server"
    if server is not None:
        yield Source("model", server.model)
        grounding, said, why = Grounding([item.number for item in items]), False, "empty"
        try:
            async with aclosing(server.words(messages(items, language))) as words:
                async for word in words:
                    for piece in grounding.feed(word):
                        said = _said(said, piece)
                        yield piece
                    if grounding.full:
                        break
            for piece in grounding.end():
                said = _said(said, piece)
                yield piece
        except NoNarrativeError as error:
            log.warning("no narrative of %s: %s", server.model, error)
            said, why = said and error.reason == "too_long", error.reason
        if said:
            yield End(why == "empty" and not grounding.full)
            return
        yield Discard()
    yield Source("template", why=why)
    grounding = Grounding([item.number for item in items])
    for piece in (*grounding.feed(narrative(items, language)), *grounding.end()):
        yield piece
    yield End(not grounding.full)


def _said(before: bool, piece: Piece) -> bool:
    """Whether anything was said that still stands."""
    if isinstance(piece, Discard):
        return False
    return before or (isinstance(piece, Text) and bool(piece.text.strip()))
