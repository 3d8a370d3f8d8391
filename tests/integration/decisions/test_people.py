"""API keys and the reading of sealed text: who may, and that it is written down."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fraudguard.decisions.keys import ApiKey, Principal
from fraudguard.decisions.repository import Changes, Repository
from fraudguard.domain import DecisionRecord, Role
from fraudguard.errors import BadInput, NotFound

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


async def trail(engine: AsyncEngine) -> list[tuple[str, str, str, object]]:
    """The audit rows."""
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT actor, action, subject, detail FROM audit ORDER BY id"))
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("role", list(Role))
async def test_a_key_speaks_for_its_owner_until_revoked(
    repository: Repository, engine: AsyncEngine, role: Role
) -> None:
    """A created key is accepted in its role; a revoked one never again; both deeds are audited."""
    key = await repository.keys.create(role, "风控 team", "root", NOW)
    key_id = key.split("_")[1]
    assert await repository.keys.verify(key) == Principal(f"风控 team ({key_id})", role)
    assert await repository.keys.list() == [ApiKey(key_id, role, "风控 team", NOW, None, "")]
    for _ in range(2):
        await repository.keys.revoke(key_id, "root", NOW)
    assert await repository.keys.verify(key) is None
    assert (await repository.keys.list())[0].revoked_at == NOW
    assert await trail(engine) == [
        ("root", "key.create", key_id, {"role": role.value, "owner": "风控 team"}),
        ("root", "key.revoke", key_id, {}),
    ]
    with pytest.raises(NotFound):
        await repository.keys.revoke("none", "root", NOW)


async def test_altered_keys_are_refused(repository: Repository) -> None:
    """Any other text is nobody's key, however close."""
    key = await repository.keys.create(Role.ADMIN, "root", "root", NOW)
    swapped = key[:-1] + ("A" if key[-1] != "A" else "B")
    other = await repository.keys.create(Role.SERVICE, "bank", "root", NOW)
    mixed = "_".join([*key.split("_", 2)[:2], other.split("_", 2)[2]])
    for wrong in (swapped, mixed, key + "x", key[:-1], key[3:], "", "fg", "fg__", "fg_\x00_x", "fg_é_ü", key + "\n"):
        assert await repository.keys.verify(wrong) is None


async def test_no_secret_is_stored(repository: Repository, engine: AsyncEngine) -> None:
    """Neither the key table nor the audit trail can be used to call the API."""
    key = await repository.keys.create(Role.ADMIN, "root", "root", NOW)
    secret = key.split("_", 2)[2]
    async with engine.connect() as connection:
        dump = await connection.scalars(text("SELECT k::text FROM api_keys k UNION ALL SELECT a::text FROM audit a"))
        rows = dump.all()
    assert len(rows) == 2
    assert not any(secret in row or secret.encode().hex() in row for row in rows)


@pytest.mark.parametrize("owner", ["", " a", "a\nb", "x" * 129])
async def test_bad_owners_are_refused(repository: Repository, owner: str) -> None:
    """An owner is a printable name."""
    with pytest.raises(BadInput, match="owner"):
        await repository.keys.create(Role.SERVICE, owner, "root", NOW)


async def test_reading_sealed_text_is_audited(
    repository: Repository, engine: AsyncEngine, make: Callable[..., DecisionRecord]
) -> None:
    """Whoever reads the sealed text leaves a row with the reason; what cannot be read leaves none."""
    sealed, bare = make(sealed=b"gAAAA\x00"), make()
    await repository.commit(Changes(records=[sealed, bare]))
    wanted = sealed.decision.decision_id
    assert await repository.raw_text_of(wanted, "root", " court order ", NOW) == b"gAAAA\x00"
    for missing in (bare.decision.decision_id, "none"):
        with pytest.raises(NotFound):
            await repository.raw_text_of(missing, "root", "court order", NOW)
    with pytest.raises(BadInput, match="reason"):
        await repository.raw_text_of(wanted, "root", " ", NOW)
    assert await trail(engine) == [("root", "text.read", wanted, {"reason": "court order"})]
