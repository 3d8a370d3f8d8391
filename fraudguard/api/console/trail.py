"""What people did with a case, from the audit trail, in the reader's words."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from starlette.responses import Response

from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import page
from fraudguard.api.console.shown import short
from fraudguard.api.console.words import Words
from fraudguard.api.services import Use
from fraudguard.decisions.audit import Deed

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Told:
    """A deed. why: what its actor wrote, empty where nothing was asked."""

    at: datetime
    actor: str
    said: str
    why: str


@router.get("/cases/{case_id}/history")
async def history(services: Use, reader: Reading, case_id: Annotated[str, Path(max_length=64)]) -> Response:
    """The newest 500 deeds, the newest first."""
    await services.repository.cases.get_case(case_id)
    deeds = await services.repository.cases.history(case_id)
    return page("trail.html", reader, "case", deeds=[told(deed, reader.words) for deed in reversed(deeds)])


def told(deed: Deed, words: Words) -> Told:
    """A deed in words; one that the catalogue does not know by the trail's own name."""
    detail, action = deed.detail, deed.action.removeprefix("case.")
    why = str(detail.get("reason", ""))
    why = words.either(f"reason.{why}", why)
    match action:
        case "assign":
            named = detail.get("assignee")
            said = words("deed.assign", name=named) if named else words("deed.unassign")
        case "snooze":
            said = words("deed.snooze" if detail.get("until") else "deed.wake")
        case "attach":
            said = words("deed.attach", name=detail.get("name", ""))
        case "link":
            said = words("deed.link", id=short(str(detail.get("to", ""))))
        case "merge":
            into = "into" in detail
            said = words("deed.merged" if into else "deed.merge", id=short(str(detail["into" if into else "from"])))
        case "dispose" | "review":
            disposition = words(f"disposition.{detail.get('disposition')}")
            said = words(f"deed.{action}", disposition=disposition)
        case "dispose_alerts":
            alerts = detail.get("alerts")
            judged = [words(f"disposition.{one}") for one in alerts.values()] if isinstance(alerts, Mapping) else []
            said = words("deed.dispose_alerts", n=len(judged), disposition=", ".join(sorted(set(judged))))
        case _:
            said = words.either(f"deed.{action}", deed.action)
    return Told(deed.at, deed.actor, said, why)
