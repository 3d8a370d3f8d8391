"""Tenants in the store: every table is somebody's, and nobody reaches another's rows, whatever SQL a query holds."""

import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from fraudguard.decisions import audit
from fraudguard.decisions.casebook import Case, CaseFilter, Disposition
from fraudguard.decisions.connection import ROLE, on_behalf_of, open_engine, transaction
from fraudguard.decisions.evidence import Evidence
from fraudguard.decisions.feed import CaseChange, Subscription
from fraudguard.decisions.listing import DecisionFilter
from fraudguard.decisions.repository import Changes, Repository, StoredState
from fraudguard.domain import Contribution, DecisionRecord, EntityCount, Label, Role, WindowCount
from fraudguard.embedded.postgres import EmbeddedPostgres
from fraudguard.errors import BadInput, BadSettings, Conflict, FraudguardError, HouseOnly, NotFound
from fraudguard.tenants import scoped

Make = Callable[..., DecisionRecord]
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
TENANTS = ("", "bank-a", "bank-b")
# Nobody's data, or only the house's business: whoever sees a tenant's rows may do nothing with them.
HOUSES = frozenset(
    {
        "alembic_version",
        "audit_chain",
        "documents",
        "list_entries",
        "model_steps",
        "models",
        "rule_activations",
        "rule_releases",
        "rule_reviews",
        "sessions",
        "shadow_scores",
        "sign_ins",
    }
)

# Partitions are reached through their table, whose policy then holds; by themselves the role has no right to them.
TABLES = """
SELECT c.relname, c.relrowsecurity, c.relispartition, a.attnotnull,
       ARRAY(SELECT acl.privilege_type FROM aclexplode(c.relacl) acl WHERE acl.grantee IN (0, r.oid)) AS rights,
       ARRAY(SELECT format('%s %s %s %s %s', p.polpermissive, p.polcmd, p.polroles,
                           pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
             FROM pg_policy p WHERE p.polrelid = c.oid) AS policies, r.oid AS role
FROM pg_class c JOIN pg_roles r ON r.rolname = 'fraudguard_tenant'
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant'
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY c.relname
"""
ITS_OWN = "(tenant = NULLIF(current_setting('fraudguard.tenant'::text, true), ''::text))"


async def test_every_table_is_the_houses_or_kept_by_tenant(engine: AsyncEngine, filled: Mapping[str, Any]) -> None:
    """A table that nobody thought of fails here: it is declared the house's, or has a tenant, a policy and no more."""
    async with engine.connect() as connection:
        rows = (await connection.execute(text(TABLES))).all()
    assert {row.relname for row in rows} >= HOUSES
    for row in rows:
        if row.relname in HOUSES or row.relispartition:
            assert row.rights == [], f"{row.relname} is the house's, but the tenants' role may {row.rights}"
        else:
            assert row.attnotnull, f"{row.relname} has no tenant: declare it the house's, or give it one and a policy"
            assert row.relrowsecurity, row.relname
            assert row.policies == [f"t * {{{row.role}}} {ITS_OWN} {ITS_OWN}"], row.relname


async def test_the_role_can_do_nothing_by_itself(engine: AsyncEngine) -> None:
    """It cannot sign in, passes no policy by, makes nothing, and is a member of nothing."""
    query = """
    SELECT rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
           OR EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid)
           OR has_schema_privilege(oid, 'public', 'CREATE')
    FROM pg_roles WHERE rolname = :role
    """
    async with engine.connect() as connection:
        assert await connection.scalar(text(query), {"role": ROLE}) is False


async def fill(repository: Repository, make: Make, tenant: str) -> dict[str, Any]:
    """Rows of a tenant in every table that has one, by the deeds that make them; the same ids for each tenant."""
    records = [
        make(account="a-1", event_id="e-1", sequence=1, tenant=tenant, sealed=b"x"),
        make(account="a-2", event_id="e-2", sequence=1, tenant=tenant),
        make(account="a-3", event_id="e-3", sequence=1, tenant=tenant),
    ]
    with on_behalf_of(tenant):
        kinds = ["case.opened", "decision.review"]
        await repository.webhooks.put("payments", f"https://{tenant or 'house'}.example", kinds, b"s", "ana", NOW)
    label = Label.model_validate(
        {
            "type": "label",
            "version": 1,
            "event_id": "l-1",
            "account_id": "a-1",
            "event_time": NOW,
            "target_event_id": "e-1",
            "source": "chargeback",
            "verdict": "fraud",
            "attributes": {"tenant": tenant} if tenant else {},
        }
    )
    await repository.commit(
        Changes(
            records=records,
            labels=[label],
            states={scoped(tenant, f"a-{n}"): StoredState(0, b"s") for n in (1, 2, 3)},
            counts=[EntityCount("device", scoped(tenant, "d-1"), 20_000, 1, 0)],
            window_counts=[WindowCount("w", scoped(tenant, "d-1"), 1, 1, 1, None, 0)],
            alerts=records,
        )
    )
    for record in records:
        id = record.decision.decision_id
        await repository.evidence.put(Evidence(id, "m", 0.5, (Contribution("line", "1", 0.1),), NOW))
        await repository.evidence.wish(id, NOW)
    key = await repository.keys.create(Role.ANALYST, "desk", "root", NOW, tenant)
    await repository.people.create(f"ana.{tenant or 'house'}", Role.ANALYST, "hash", "root", NOW, tenant)
    await repository.repeats.claim(f"ana.{tenant}", "k-1", b"f", NOW, tenant)
    with on_behalf_of(tenant):
        await _work(repository)
    return {"records": records, "key": key}


async def _work(repository: Repository) -> None:
    """What people do with the three cases that they see: a note, a file, a link, a verdict on one alert, on a case."""
    book = repository.cases
    seen = {case.account_id: case for case in (await book.list_cases(CaseFilter(state="open", tenant=""))).items}
    assert sorted(seen) == ["a-1", "a-2", "a-3"]
    one, two, three = (seen[account] for account in sorted(seen))
    one = await book.claim(one.case_id, one.version, "ana", NOW)
    one = await book.note(one.case_id, one.version, "called", "ana", NOW)
    one, _ = await book.attach(one.case_id, one.version, "call.txt", "text/plain", b"hello", "ana", NOW)
    one = await book.link(one.case_id, one.version, two.case_id, "the same payee", "ana", NOW)
    alerts = (await book.get_case(one.case_id))[1]
    ids = [alerts[0].decision_id]
    one = await book.dispose_alerts(one.case_id, one.version, ids, Disposition.CONFIRMED_FRAUD, "theft", "ana", NOW)
    await book.dispose(three.case_id, three.version, Disposition.FALSE_POSITIVE, "known payee", "ana", NOW)


@pytest.fixture
async def filled(repository: Repository, make: Make) -> Mapping[str, Any]:
    """Every tenant with the same ids in every table."""
    return {tenant: await fill(repository, make, tenant) for tenant in TENANTS}


async def cases_of(repository: Repository, tenant: str) -> dict[str, Case]:
    """A tenant's cases by account."""
    page = await repository.cases.list_cases(CaseFilter(tenant=tenant))
    return {case.account_id: case for case in page.items}


async def test_equal_ids_of_two_tenants_never_meet(repository: Repository, filled: Mapping[str, Any]) -> None:
    """Each has its own decision, state, counts, labels and cases under the ids that all of them use."""
    for tenant, made in filled.items():
        first: DecisionRecord = made["records"][0]
        assert await repository.record_of_event("e-1", tenant) == first
        assert await repository.earlier([scoped(tenant, "e-1")]) == {scoped(tenant, "e-1"): first}
        assert [line.text for line in (await repository.timeline(first)).lines] == [first.line]
        assert await repository.casefile.newest_sequence("a-1", tenant) == 1
        state = await repository.states([scoped(tenant, "a-1")])
        assert state == {scoped(tenant, "a-1"): StoredState(1, b"s")}
        counts = await repository.entity_counts([("device", scoped(tenant, "d-1"))], 0)
        assert [count.transactions for count in counts] == [1]
        (label,) = (await repository.labels([scoped(tenant, "e-1")]))[scoped(tenant, "e-1")]
        assert label.attributes == ({"tenant": tenant} if tenant else {})
        assert set(await cases_of(repository, tenant)) == {"a-1", "a-2", "a-3"}
        account = await repository.account_history([scoped(tenant, "a-1")], NOW - timedelta(days=30))
        assert [event for event, _ in account[scoped(tenant, "a-1")]] == [first.event]
    everything = [case async for case in _all_cases(repository)]
    assert len(everything) == len({case.case_id for case in everything}) == 9
    assert {label.attributes.get("tenant", "") for label in await repository.outbox.waiting(100)} == set(TENANTS)


async def _all_cases(repository: Repository) -> AsyncIterator[Case]:
    for case in (await repository.cases.list_cases(CaseFilter())).items:
        yield case


async def test_a_tenant_sees_its_own_in_every_list(repository: Repository, filled: Mapping[str, Any]) -> None:
    """Whatever filter it sends along; by id, another's are not there; the house sees all, or one's."""
    for tenant in TENANTS[1:]:
        with on_behalf_of(tenant):
            for asked in (None, "", "bank-a", "bank-b"):
                decisions = await repository.list_decisions(DecisionFilter(tenant=asked))
                assert {record.decision.tenant for record in decisions.items} == {tenant}
                cases = await repository.cases.list_cases(CaseFilter(tenant=asked))
                assert {case.tenant for case in cases.items} == {tenant}
            assert sum(inbox.awake for inbox in await repository.casefile.inboxes("ana", NOW)) == 2
            assert [hook.tenant for hook in await repository.webhooks.list()] == [tenant]
            for other in set(TENANTS) - {tenant}:
                foreign: DecisionRecord = filled[other]["records"][0]
                with pytest.raises(NotFound):
                    await repository.record(foreign.decision.decision_id)
                with pytest.raises(NotFound):
                    await repository.record_of_event("e-1", other)
                with pytest.raises(NotFound):
                    await repository.raw_text_of(foreign.decision.decision_id, "ana", "because", NOW)
                assert (await repository.timeline(foreign)).lines == ()
                assert await repository.evidence.of(foreign.decision.decision_id) is None
    assert {r.decision.tenant for r in (await repository.list_decisions(DecisionFilter())).items} == set(TENANTS)
    only = await repository.list_decisions(DecisionFilter(tenant="bank-b"))
    assert {record.decision.tenant for record in only.items} == {"bank-b"}


async def test_the_house_keeps_tenants_apart_too(repository: Repository, filled: Mapping[str, Any]) -> None:
    """It may work any tenant's case; what it writes there is the tenant's; two tenants' cases are not joined."""
    own, foreign = (await cases_of(repository, "bank-a"))["a-2"], (await cases_of(repository, "bank-b"))["a-2"]
    with pytest.raises(BadInput, match="another tenant"):
        await repository.cases.link(own.case_id, own.version, foreign.case_id, "same payee", "root", NOW)
    merging = (own.case_id, own.version, foreign.case_id, foreign.version, "same payee", "root", NOW)
    with pytest.raises(BadInput, match="another tenant"):
        await repository.cases.merge(*merging)
    await repository.cases.note(own.case_id, own.version, "we called the bank", "root", NOW)
    with on_behalf_of("bank-a"):
        assert [note.body for note in (await repository.cases.folder(own.case_id)).notes] == ["we called the bank"]
        assert [deed.actor for deed in await repository.cases.history(own.case_id)][-1] == "root"
    with on_behalf_of("bank-b"):
        assert (await repository.cases.folder(own.case_id)).notes == ()
        assert await repository.cases.history(own.case_id) == []


async def test_webhooks_hear_of_their_tenant(engine: AsyncEngine, filled: Mapping[str, Any]) -> None:
    """The house's hears everybody's decisions and cases, a tenant's nobody else's, though all have one name."""
    query = "SELECT tenant, array_agg(DISTINCT body -> 'data' ->> 'tenant' ORDER BY 1) FROM webhook_messages GROUP BY 1"
    async with engine.connect() as connection:
        heard = {row[0]: row[1] for row in await connection.execute(text(query.replace("ORDER BY 1", "")))}
    assert {tenant: sorted(of) for tenant, of in heard.items()} == {
        "": sorted(TENANTS),
        "bank-a": ["bank-a"],
        "bank-b": ["bank-b"],
    }


def test_a_listener_hears_its_tenants_cases() -> None:
    """The house's hears all; of another's case a tenant's is not even woken."""
    house, tenant = Subscription(), Subscription("bank-a")
    changes = [CaseChange("c-1", 1, "open", "bank-a"), CaseChange("c-2", 1, "open", "bank-b")]
    for listener in (house, tenant):
        listener.tell(changes)
    assert [change.case_id for change in house._changes.values()] == ["c-1", "c-2"]
    assert [change.case_id for change in tenant._changes.values()] == ["c-1"]


async def test_the_trail_is_one_chain_over_all_tenants(engine: AsyncEngine, filled: Mapping[str, Any]) -> None:
    """It verifies; whose a deed was is covered too: moved to another tenant, it is found."""
    found = await audit.verify(engine)
    assert found.broken is None
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE audit DISABLE TRIGGER audit_append_only"))
        moved = "UPDATE audit SET tenant = 'bank-b' WHERE id = (SELECT max(id) FROM audit WHERE tenant = 'bank-a')"
        await connection.execute(text(moved))
    assert (await audit.verify(engine)).broken is not None


async def test_what_is_the_houses_is_refused_as_such(repository: Repository, engine: AsyncEngine) -> None:
    """A tenant's people get a word for it, not a bug: rules, lists, models."""
    with on_behalf_of("bank-a"):
        for asking in (repository.lists.containing("x"), repository.rulebook.head(), repository.models.head()):
            with pytest.raises(HouseOnly):
                await asking
    with pytest.raises(HouseOnly):
        async with transaction(engine, "bank-a") as connection:
            await connection.execute(text("SELECT * FROM users"))


# What somebody who writes SQL into a query may try from a transaction of {own}.
CROSSINGS = {
    "read": "SELECT * FROM {table} WHERE tenant <> '{own}'",
    "read all": "SELECT * FROM {table} WHERE tenant = '{other}' OR true",
    "read by subquery": "SELECT (SELECT count(*) FROM {table} t WHERE t.tenant IN ('{other}', '')) AS n",
    "read a partition": "SELECT * FROM decisions_2026_11",
    "steal": "UPDATE {table} SET tenant = '{own}' WHERE tenant <> '{own}'",
    "give away": "UPDATE {table} SET tenant = '{other}'",
    "lock": "SELECT * FROM {table} WHERE tenant = '{other}' FOR UPDATE",
    "delete": "DELETE FROM {table} WHERE tenant <> '{own}'",
    "truncate": "TRUNCATE {table} CASCADE",
    "copy in": "INSERT INTO {table} SELECT * FROM {table}",
    "plant": "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {planted} FROM {table}",
    "merge": "MERGE INTO {table} t USING {table} s ON t.tenant = '{other}' WHEN MATCHED THEN DELETE",
    "copy out": "WITH taken AS (DELETE FROM {table} RETURNING *) SELECT * FROM taken WHERE tenant <> '{own}'",
    "no policy": "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
    "new policy": "CREATE POLICY mine ON {table} USING (true)",
    "no trigger": "ALTER TABLE {table} DISABLE TRIGGER ALL",
    "grant": "GRANT ALL ON {table} TO PUBLIC",
    "row security off": "SET LOCAL row_security = off; SELECT * FROM {table}",
}
COLUMNS = """
SELECT table_name, array_agg(CAST(column_name AS text) ORDER BY ordinal_position) AS columns
FROM information_schema.columns WHERE is_generated = 'NEVER' AND table_schema = 'public' GROUP BY 1
"""


async def _snapshot(connection: AsyncConnection, tables: Mapping[str, Any], tenant: str) -> dict[str, Any]:
    """Everybody's rows but this tenant's, by table, as the house sees them."""
    found = {}
    for table in tables:
        query = f"SELECT CAST(t AS text) FROM {table} t WHERE tenant <> :tenant ORDER BY 1"
        found[table] = list(await connection.scalars(text(query), {"tenant": tenant}))
    return found


@pytest.fixture
async def tables(engine: AsyncEngine, filled: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """The columns of every table of tenants; each tenant has rows in every one."""
    async with engine.connect() as connection:
        named = {row.table_name: row.columns for row in await connection.execute(text(COLUMNS))}
        listed = [row for row in await connection.execute(text(TABLES)) if row.relrowsecurity]
        for row in listed:
            held = await connection.scalars(text(f"SELECT DISTINCT tenant FROM {row.relname}"))
            assert set(held) >= set(TENANTS), f"{row.relname} is not filled for every tenant"
    return {row.relname: named[row.relname] for row in listed}


@given(data=st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_sql_crosses(database_url: str, tables: Mapping[str, list[str]], data: st.DataObject) -> None:
    """Whatever a tenant's transaction tries with whichever table: it reads nobody else's row and changes none."""
    table = data.draw(st.sampled_from(sorted(tables)))
    own = data.draw(st.sampled_from(TENANTS[1:]))
    other = data.draw(st.sampled_from([tenant for tenant in TENANTS if tenant != own]))
    tries = data.draw(st.lists(st.sampled_from(sorted(CROSSINGS)), min_size=1, max_size=3))
    planted = [f"'{other}'" if column == "tenant" else column for column in tables[table]]
    engine = open_engine(database_url)
    try:
        async with engine.connect() as connection:
            before = await _snapshot(connection, tables, own)
        for name in tries:
            names = {"table": table, "own": own, "other": other}
            words = {"columns": ", ".join(tables[table]), "planted": ", ".join(planted)}
            for row in await _try(engine, own, CROSSINGS[name].format(**names, **words)):
                assert getattr(row, "tenant", own) == own, name
                assert getattr(row, "n", 0) == 0, name
        async with engine.connect() as connection:
            assert await _snapshot(connection, tables, own) == before, (table, tries)
    finally:
        await engine.dispose()


async def _try(engine: AsyncEngine, tenant: str, script: str) -> list[Any]:
    """The rows of the last statement; none where it was refused."""
    rows: list[Any] = []
    try:
        async with transaction(engine, tenant) as connection:
            for statement in script.split("; "):
                done = await connection.execute(text(statement))
                rows = list(done) if done.returns_rows else []
    except (FraudguardError, DBAPIError):
        return []
    return rows


async def test_a_tenants_own_work_is_not_in_the_way(repository: Repository, filled: Mapping[str, Any]) -> None:
    """What the roles of a tenant do to its cases: claim, note, file, link, merge, dispose, take back, review."""
    with on_behalf_of("bank-a"):
        cases = await cases_of(repository, "bank-a")
        closed = cases["a-3"]
        await repository.cases.reopen(closed.case_id, closed.version, "ana", NOW)
        one, two = cases["a-1"], cases["a-2"]
        merged = await repository.cases.merge(one.case_id, one.version, two.case_id, two.version, "one", "ana", NOW)
        done = await repository.cases.dispose(
            one.case_id, merged.version, Disposition.CONFIRMED_FRAUD, "theft", "ana", NOW
        )
        with pytest.raises(Conflict):
            await repository.cases.dispose(one.case_id, done.version, Disposition.SUSPICIOUS, "no", "ana", NOW)
        content = await repository.cases.read_file(one.case_id, hashlib.sha256(b"hello").hexdigest(), "ana", NOW)
        assert content[1] == b"hello"
        assert await repository.webhooks.retry("payments", "ana", NOW) == 0
        await repository.webhooks.remove("payments", "ana", NOW)
    assert [hook.tenant for hook in await repository.webhooks.list()] == ["", "bank-b"]


async def test_a_user_without_the_right_is_told_what_an_administrator_does(
    postgres: EmbeddedPostgres, database_url: str
) -> None:
    """Where the role may not be turned to, the error names the two statements that mend it."""
    admin, name = open_engine(database_url), database_url.rpartition("/")[2].partition("?")[0]
    async with admin.begin() as connection:
        await connection.execute(text("DROP ROLE IF EXISTS fraudguard_stranger"))
        await connection.execute(text("CREATE ROLE fraudguard_stranger LOGIN PASSWORD 'x'"))
    await admin.dispose()
    url = admin.url.set(drivername="postgresql", username="fraudguard_stranger", password="x", database=name)
    engine = open_engine(url.render_as_string(hide_password=False))
    try:
        with pytest.raises(BadSettings, match="CREATE ROLE fraudguard_tenant NOLOGIN; GRANT"):
            async with transaction(engine, "bank-a") as connection:
                await connection.execute(text("SELECT 1"))
    finally:
        await engine.dispose()
