"""Versions as HTTP has them: an ETag on what is read, If-Match on what changes it."""

import re
from typing import Annotated

from fastapi import Depends, Header

from fraudguard.api.problems import ProblemError

# A proxy that compresses makes a tag weak; the version in it is the same.
_TAG = re.compile(r'(?:W/)?"([1-9][0-9]{0,17})"', re.ASCII)


def etag(version: int) -> dict[str, str]:
    """The header that names a version."""
    return {"ETag": f'"{version}"'}


def _seen(
    if_match: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="The ETag of what you read; 412 `overtaken` if somebody has changed it since, 428 without",
            examples=['"1"'],
            max_length=64,
        ),
    ] = None,
) -> int:
    hint = "send the ETag of GET /v1/cases/{case_id}"
    if if_match is None:
        raise ProblemError(428, "version_needed", "says not which version it is about", path="If-Match", hint=hint)
    match = _TAG.fullmatch(if_match.strip())
    if match is None:
        raise ProblemError(422, "bad_field", "is not an ETag of a case", path="If-Match", hint=hint)
    return int(match[1])


# The version that the caller saw.
Seen = Annotated[int, Depends(_seen)]
