"""Keyset pages: a page continues after the last row's own key, so rows that arrive meanwhile shift nothing."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from fraudguard.errors import BadInput

PAGE_MAX = 500
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """next: the cursor of the following page, None on the last."""

    items: tuple[Item, ...]
    next: str | None


def encode_cursor(*key: float | str | datetime) -> str:
    """An opaque, URL-safe name of the place after this key."""
    parts = [part.isoformat() if isinstance(part, datetime) else part for part in key]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, *types: type) -> list[float | str | datetime]:
    """The key of encode_cursor, whose parts had these types. Raises BadInput."""
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)), parse_constant=_refuse)
        key = [datetime.fromisoformat(p) if t is datetime else p for p, t in zip(parts, types, strict=True)]
        right = all(isinstance(part, kind) for part, kind in zip(key, types, strict=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadInput("is not a cursor of this list", path="cursor", hint="send `next` of the page before") from error
    if not right or any(isinstance(part, datetime) and part.tzinfo is None for part in key):
        raise BadInput("is not a cursor of this list", path="cursor", hint="send `next` of the page before")
    return key


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} has no place in an order")


def check_limit(limit: int) -> int:
    """The limit, if it is one that may be asked for. Raises BadInput."""
    if not 1 <= limit <= PAGE_MAX:
        raise BadInput(f"must be from 1 to {PAGE_MAX}", path="limit")
    return limit
