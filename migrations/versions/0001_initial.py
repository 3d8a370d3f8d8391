"""The first schema: decisions by month, account states, feedback counts, cases, keys and the audit trail."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# The unpartitioned guard of "once per event": the unique keys that a partitioned table cannot have.
EVENT_IDS = """
CREATE TABLE event_ids (
    event_id    text PRIMARY KEY,
    account_id  text NOT NULL,
    sequence    bigint NOT NULL,
    event_time  timestamptz NOT NULL,
    decision_id text NOT NULL UNIQUE,
    UNIQUE (account_id, sequence)
)
"""

# body: the exact record as JSON text (json, not jsonb: jsonb forgets -0.0, key order and 1e22 being a float).
DECISIONS = """
CREATE TABLE decisions (
    event_time  timestamptz NOT NULL,
    decision_id text NOT NULL,
    event_id    text NOT NULL,
    account_id  text NOT NULL,
    sequence    bigint NOT NULL,
    event_type  text NOT NULL CHECK (event_type IN ('transaction', 'message')),
    outcome     text NOT NULL CHECK (outcome IN ('approve', 'step_up', 'review', 'block')),
    risk        double precision CHECK (risk BETWEEN 0 AND 1),
    typology    text,
    reasons     text[] NOT NULL,
    degraded    boolean NOT NULL,
    decided_at  timestamptz NOT NULL,
    body        json NOT NULL,
    sealed_text bytea,
    PRIMARY KEY (event_time, decision_id)
) PARTITION BY RANGE (event_time);
CREATE INDEX ix_decisions_account ON decisions (account_id, event_time, decision_id);
CREATE INDEX ix_decisions_outcome ON decisions (outcome, event_time, decision_id);
CREATE INDEX ix_decisions_reasons ON decisions USING gin (reasons) WHERE reasons <> '{}';
"""

# Months from 2010 to 2049 get their own partition on demand; events of any other year stay in the default one. Its
# check refuses a row whose month is merely missing, so that a partition can always be attached, without a scan.
DECISIONS_OTHER = """
CREATE TABLE decisions_other PARTITION OF decisions DEFAULT;
ALTER TABLE decisions_other ADD CONSTRAINT decisions_other_years CHECK (
    event_time IS NOT NULL AND (event_time < '2010-01-01+00' OR event_time >= '2050-01-01+00'));
"""

# ATTACH, unlike CREATE TABLE ... PARTITION OF, does not stop the writers of other months. A usual row (3 KB)
# stays in its page as it is: compressing it was a fifth of a batch's commit.
ENSURE_MONTH = """
CREATE FUNCTION decisions_ensure_month(month date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'decisions_' || to_char(month, 'YYYY_MM');
    first timestamptz := month::timestamp AT TIME ZONE 'UTC';
    after timestamptz := (month + interval '1 month')::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF month < '2010-01-01' OR month >= '2050-01-01' OR extract(day FROM month) <> 1 THEN
        RAISE EXCEPTION 'not the first of a month from 2010 to 2049: %', month;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('fraudguard decisions partitions'));
    IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'decisions'::regclass AND inhrelid = to_regclass(name)) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE decisions INCLUDING DEFAULTS INCLUDING CONSTRAINTS)'
                   ' WITH (toast_tuple_target = 4080)', name);
    EXECUTE format('ALTER TABLE decisions ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, first, after);
END $$
"""

LABELS = """
CREATE TABLE labels (
    event_id        text PRIMARY KEY,
    account_id      text NOT NULL,
    event_time      timestamptz NOT NULL,
    target_event_id text NOT NULL,
    source          text NOT NULL,
    verdict         text NOT NULL CHECK (verdict IN ('fraud', 'legitimate')),
    typology        text
);
CREATE INDEX ix_labels_target ON labels (target_event_id);
"""

STATE = """
CREATE TABLE account_state (
    account_id text PRIMARY KEY,
    version    bigint NOT NULL CHECK (version > 0),
    body       bytea NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE entity_counts (
    kind         text NOT NULL CHECK (kind IN ('counterparty', 'device', 'merchant')),
    entity_id    text NOT NULL,
    day          integer NOT NULL,
    transactions bigint NOT NULL,
    frauds       bigint NOT NULL,
    PRIMARY KEY (kind, entity_id, day)
) WITH (fillfactor = 70);
CREATE TABLE documents (
    kind    text NOT NULL,
    version text NOT NULL,
    body    text NOT NULL,
    PRIMARY KEY (kind, version)
);
"""

CASES = """
CREATE TABLE cases (
    case_id       text PRIMARY KEY,
    account_id    text NOT NULL,
    state         text NOT NULL CHECK (state IN ('open', 'investigating', 'closed')),
    opened_at     timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    expected_loss double precision NOT NULL,
    top_risk      double precision,
    typology      text,
    outcome       text NOT NULL,
    alerts        integer NOT NULL,
    claimed_by    text,
    disposition   text CHECK (disposition IN ('confirmed_fraud', 'suspicious', 'false_positive')),
    reason        text,
    closed_at     timestamptz,
    closed_by     text,
    CONSTRAINT cases_closed CHECK ((state = 'closed') = (disposition IS NOT NULL AND reason IS NOT NULL
                                                         AND closed_at IS NOT NULL AND closed_by IS NOT NULL))
);
CREATE UNIQUE INDEX ux_cases_unclosed ON cases (account_id) WHERE state <> 'closed';
CREATE INDEX ix_cases_queue ON cases (expected_loss DESC, opened_at, case_id);
CREATE INDEX ix_cases_account ON cases (account_id);
CREATE TABLE alerts (
    decision_id text PRIMARY KEY,
    case_id     text NOT NULL REFERENCES cases,
    event_id    text NOT NULL,
    account_id  text NOT NULL,
    event_type  text NOT NULL,
    event_time  timestamptz NOT NULL,
    sequence    bigint NOT NULL,
    outcome     text NOT NULL,
    risk        double precision,
    typology    text,
    amount_base double precision
);
CREATE INDEX ix_alerts_case ON alerts (case_id);
CREATE TABLE dispositions (
    case_id     text PRIMARY KEY REFERENCES cases,
    disposition text NOT NULL,
    reason      text NOT NULL,
    actor       text NOT NULL,
    at          timestamptz NOT NULL
);
CREATE TABLE outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    body         json NOT NULL,
    created_at   timestamptz NOT NULL,
    published_at timestamptz
);
CREATE INDEX ix_outbox_pending ON outbox (id) WHERE published_at IS NULL;
"""

PEOPLE = """
CREATE TABLE api_keys (
    key_id      text PRIMARY KEY,
    secret_hash bytea NOT NULL,
    role        text NOT NULL CHECK (role IN ('service', 'analyst', 'risk_manager', 'admin')),
    owner       text NOT NULL,
    created_at  timestamptz NOT NULL,
    revoked_at  timestamptz
);
CREATE TABLE audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    subject text NOT NULL,
    detail  jsonb NOT NULL
);
CREATE INDEX ix_audit_subject ON audit (subject, id);
"""

REFUSE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
END $$
"""
APPEND_ONLY = ("event_ids", "decisions", "labels", "documents", "alerts", "dispositions", "audit")


def upgrade() -> None:
    """Create everything; additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (EVENT_IDS, DECISIONS, DECISIONS_OTHER, LABELS, STATE, CASES, PEOPLE):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
    op.execute(ENSURE_MONTH)
    op.execute(REFUSE)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
