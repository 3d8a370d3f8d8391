"""What pages send: forms as browsers encode them, and the version of a case that its sender saw."""

from urllib.parse import parse_qs

from fastapi import Request

from fraudguard.errors import BadInput


async def form_of(request: Request) -> dict[str, str]:
    """The body's fields, the first of each name."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}


def version_of(fields: dict[str, str]) -> int:
    """The version of the case that the page showed. Raises BadInput."""
    seen = fields.get("seen", "")
    if not seen.isascii() or not seen.isdigit() or len(seen) > 18:
        raise BadInput("must be the version of the case that was seen", path="seen", hint="load the page again")
    return int(seen)
