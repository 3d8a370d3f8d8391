"""What people put into cases: notes, files, links to other cases, and other cases themselves.

A file is evidence: kept as it came, named by its hash, and never shown, only handed out. Raises as Casework does.
"""

import hashlib
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, insert, or_, select

from fraudguard.decisions import audit
from fraudguard.decisions.case_types import Case, checked
from fraudguard.decisions.casework import UNCLAIMED, Casework
from fraudguard.decisions.connection import transaction
from fraudguard.decisions.tables import CASE_FILES, CASE_LINKS, CASE_NOTES, CASES
from fraudguard.errors import BadInput, Conflict, NotFound

NOTE_CHARACTERS_MAX: Final = 8_000
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
FILES_A_CASE_MAX: Final = 20
FILE_NAME_CHARACTERS_MAX: Final = 128
SHOWN_MAX: Final = 500  # notes, links, merged cases and deeds of one case

# What a file of each type begins with; of plain text only that it is text.
MEDIA_TYPES: Final = {
    "application/pdf": b"%PDF-",
    "image/jpeg": b"\xff\xd8\xff",
    "image/png": b"\x89PNG\r\n\x1a\n",
    "text/plain": b"",
}


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody wrote about a case."""

    body: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A file without its content. sha256: of the content, in hex; its id within the case."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Link:
    """That another case has to do with this one, and why."""

    case_id: str
    account_id: str
    state: str
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Folder:
    """What a case holds besides its alerts, oldest first; merged: ids of the cases that are judged with it."""

    notes: tuple[Note, ...]
    files: tuple[CaseFile, ...]
    links: tuple[Link, ...]
    merged: tuple[str, ...]


class Folders(Casework):
    """Raises as Casework does."""

    async def folder(self, case_id: str) -> Folder:
        """The newest SHOWN_MAX of each; empty for a case that is not there."""
        async with transaction(self._engine) as connection:
            n, f = CASE_NOTES.c, CASE_FILES.c
            notes = await connection.execute(
                select(n.body, n.actor, n.at).where(n.case_id == case_id).order_by(n.id.desc()).limit(SHOWN_MAX)
            )
            files = await connection.execute(
                select(f.name, f.media_type, f.bytes, f.sha256, f.actor, f.at)
                .where(f.case_id == case_id)
                .order_by(f.id.desc())
                .limit(FILES_A_CASE_MAX)
            )
            links = await connection.execute(_links(case_id))
            merged = await connection.scalars(
                select(CASES.c.case_id)
                .where(CASES.c.merged_into == case_id)
                .order_by(CASES.c.closed_at, CASES.c.case_id)
                .limit(SHOWN_MAX)
            )
            return Folder(
                tuple(Note(*row) for row in reversed(notes.all())),
                tuple(CaseFile(*row) for row in reversed(files.all())),
                tuple(Link(*row) for row in reversed(links.all())),
                tuple(merged),
            )

    async def history(self, case_id: str) -> list[audit.Deed]:
        """What people did with the case, from the audit trail: the newest SHOWN_MAX, oldest first."""
        async with transaction(self._engine) as connection:
            return await audit.history(connection, case_id, SHOWN_MAX)

    async def note(self, case_id: str, seen: int, body: str, actor: str, at: datetime) -> Case:
        """Write something down; of a closed case, or somebody else's, too. The trail says that, not what."""
        body = checked(body, "body", NOTE_CHARACTERS_MAX)
        async with self.changing(case_id, seen, actor, at) as change:
            values = {"case_id": case_id, "body": body, "actor": actor, "at": at, "tenant": change.case.tenant}
            await change.connection.execute(insert(CASE_NOTES).values(values))
            return await change.save("case.note", {"characters": len(body)})

    async def attach(
        self, case_id: str, seen: int, name: str, media_type: str, body: bytes, actor: str, at: datetime
    ) -> tuple[Case, CaseFile]:
        """Keep a file of an allowed type with the case; the same content once."""
        _check_file(name, media_type, body)
        digest = hashlib.sha256(body).hexdigest()
        kept = CaseFile(name, media_type, len(body), digest, actor, at)
        async with self.changing(case_id, seen, actor, at) as change:
            f = CASE_FILES.c
            of_case = select(func.count(), func.count().filter(f.sha256 == digest)).where(f.case_id == case_id)
            count, same = (await change.connection.execute(of_case)).one()
            if same:
                raise Conflict(f"case {case_id} has this file already", path="sha256")
            if count >= FILES_A_CASE_MAX:
                raise Conflict(f"case {case_id} has {FILES_A_CASE_MAX} files already", path="case_id")
            values = {**asdict(kept), "case_id": case_id, "body": body, "tenant": change.case.tenant}
            await change.connection.execute(insert(CASE_FILES).values(values))
            detail: audit.Detail = {"name": name, "media_type": media_type, "bytes": len(body), "sha256": digest}
            return await change.save("case.attach", detail), kept

    async def read_file(self, case_id: str, sha256: str, actor: str, at: datetime) -> tuple[CaseFile, bytes]:
        """A file with its content; that it was read is written down first. Raises NotFound."""
        f = CASE_FILES.c
        async with transaction(self._engine) as connection:
            found = await connection.execute(
                select(f.name, f.media_type, f.bytes, f.sha256, f.actor, f.at, f.body, f.tenant).where(
                    f.case_id == case_id, f.sha256 == sha256
                )
            )
            row = found.one_or_none()
            if row is None:
                raise NotFound(f"case {case_id!r} has no file {sha256!r}")
            await audit.append(connection, at, actor, "case.read_file", case_id, {"sha256": sha256}, row.tenant)
        *fields, body, _ = tuple[Any, ...](row)
        return CaseFile(*fields), body

    async def link(self, case_id: str, seen: int, other: str, reason: str, actor: str, at: datetime) -> Case:
        """Say that another case has to do with this one; it shows on both."""
        reason = checked(reason)
        if other == case_id:
            raise BadInput("is the case itself", path="case_id")
        async with self.changing(case_id, seen, actor, at, other) as change:
            change.must_be_of_one_tenant(other)
            low, high = sorted((case_id, other))
            c = CASE_LINKS.c
            if await change.connection.scalar(select(c.at).where(c.a == low, c.b == high)):
                raise Conflict(f"cases {case_id} and {other} are linked already", path="case_id")
            tenant = change.case.tenant
            values = {"a": low, "b": high, "reason": reason, "actor": actor, "at": at, "tenant": tenant}
            await change.connection.execute(insert(CASE_LINKS).values(values))
            await change.write(other)
            detail: audit.Detail = {"to": case_id, "reason": reason}
            await audit.append(change.connection, at, actor, "case.link", other, detail, tenant)
            return await change.save("case.link", {"to": other, "reason": reason})

    async def merge(
        self, case_id: str, seen: int, other: str, other_seen: int, reason: str, actor: str, at: datetime
    ) -> Case:
        """Judge another open case with this one: it closes, and its alerts count here. Later alerts of its account
        open a case of their own.
        """
        reason = checked(reason)
        if other == case_id:
            raise BadInput("is the case itself", path="case_id")
        async with self.changing(case_id, seen, actor, at, other, others_seen={other: other_seen}) as change:
            change.must_be_of_one_tenant(other)
            change.must_be_free()
            change.must_be_free(other)
            gone = change.others[other]
            for further in change.merged_into(other):
                await change.write(further.case_id, merged_into=case_id)
            closed = UNCLAIMED | {"state": "closed", "merged_into": case_id, "closed_at": at, "closed_by": actor}
            await change.write(other, **closed)
            detail: audit.Detail = {"into": case_id, "reason": reason}
            await audit.append(change.connection, at, actor, "case.merge", other, detail, change.case.tenant)
            return await change.save("case.merge", {"from": other, "reason": reason}, **_together(change.case, gone))


def _together(case: Case, other: Case) -> dict[str, Any]:
    """What a case is once another one's alerts count as its own."""
    worse = other.top_risk is not None and (case.top_risk is None or other.top_risk > case.top_risk)
    riskiest = other if worse else case
    return {
        "expected_loss": case.expected_loss + other.expected_loss,
        "money_held": case.money_held + other.money_held,
        "alerts": case.alerts + other.alerts,
        "top_risk": riskiest.top_risk,
        "typology": riskiest.typology and riskiest.typology.value,
        "top_line": riskiest.top_line,
        "outcome": max(case.outcome, other.outcome, key=lambda outcome: outcome.severity).value,
        "due_at": min(case.due_at, other.due_at),
    }


def _links(case_id: str) -> Any:
    c = CASE_LINKS.c
    other = func.nullif(c.a, case_id)
    far = CASES.alias()
    return (
        select(far.c.case_id, far.c.account_id, far.c.state, c.reason, c.actor, c.at)
        .select_from(CASE_LINKS.join(far, far.c.case_id == func.coalesce(other, c.b)))
        .where(or_(c.a == case_id, c.b == case_id))
        .order_by(c.at.desc(), far.c.case_id)
        .limit(SHOWN_MAX)
    )


def _check_file(name: str, media_type: str, body: bytes) -> None:
    if (
        not 1 <= len(name) <= FILE_NAME_CHARACTERS_MAX
        or not name.isprintable()
        or name != name.strip()
        or set(name) & set('/\\"')
    ):
        hint = "no quotes, no slashes, no space around it"
        raise BadInput(f"must be 1 to {FILE_NAME_CHARACTERS_MAX} printable characters", path="name", hint=hint)
    if media_type not in MEDIA_TYPES:
        raise BadInput(f"must be {', '.join(MEDIA_TYPES)}", path="Content-Type", hint="export it to one of these")
    if not 1 <= len(body) <= FILE_BYTES_MAX:
        raise BadInput(f"must have 1 to {FILE_BYTES_MAX:,} bytes", path="body")
    if not body.startswith(MEDIA_TYPES[media_type]) or (media_type == "text/plain" and not _is_text(body)):
        raise BadInput(f"is not {media_type}", path="body", hint="send it with its own Content-Type")


def _is_text(body: bytes) -> bool:
    try:
        return "\x00" not in body.decode()
    except UnicodeDecodeError:
        return False
