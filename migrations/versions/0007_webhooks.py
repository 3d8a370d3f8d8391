"""Webhooks: who is told of decisions and case changes, and an outbox filled by the transactions that change them."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

WEBHOOKS = """
CREATE TABLE webhooks (
    name       text PRIMARY KEY,
    url        text NOT NULL,
    kinds      text[] NOT NULL,
    secret     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL
);
"""

# done_at: delivered, or given up. due_at: when to try (again); whoever sends moves it ahead first.
MESSAGES = """
CREATE TABLE webhook_messages (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook    text NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    body       json NOT NULL,
    created_at timestamptz NOT NULL,
    due_at     timestamptz NOT NULL,
    attempts   integer NOT NULL DEFAULT 0,
    problem    text,
    done_at    timestamptz,
    given_up   boolean NOT NULL DEFAULT false
);
CREATE INDEX ix_webhook_messages_due ON webhook_messages (webhook, due_at) WHERE done_at IS NULL;
CREATE INDEX ix_webhook_messages_given_up ON webhook_messages (webhook) WHERE given_up;
CREATE INDEX ix_webhook_messages_done_at ON webhook_messages (done_at) WHERE done_at IS NOT NULL;
"""

# One row for each webhook that asked for this kind. Thin: ids and what one filters by; the rest is a question away.
TELL = """
CREATE FUNCTION tell_webhooks(kind text, at timestamptz, data jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO webhook_messages (webhook, body, created_at, due_at)
    SELECT name, json_build_object('type', kind, 'timestamp',
           to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'data', data), at, at
    FROM webhooks WHERE kind = ANY (kinds)
$$
"""

DECISIONS = """
CREATE FUNCTION tell_of_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhooks) THEN
        PERFORM tell_webhooks('decision.' || d.outcome, d.decided_at, jsonb_build_object(
            'decision_id', d.decision_id, 'event_id', d.event_id, 'account_id', d.account_id,
            'event_type', d.event_type, 'outcome', d.outcome, 'risk', d.risk, 'typology', d.typology,
            'reasons', d.reasons, 'degraded', d.degraded))
        FROM new_rows d;
    END IF;
    RETURN NULL;
END $$
"""

CASE = """
CREATE FUNCTION case_told(c cases) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object(
        'case_id', c.case_id, 'account_id', c.account_id, 'state', c.state, 'outcome', c.outcome,
        'typology', c.typology, 'alerts', c.alerts, 'expected_loss', c.expected_loss, 'disposition', c.disposition)
$$
"""

CASES = """
CREATE FUNCTION tell_of_cases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM webhooks) THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM tell_webhooks('case.opened', c.updated_at, case_told(c))
            FROM new_rows n JOIN cases c USING (case_id);
        ELSE
            PERFORM tell_webhooks(
                CASE WHEN c.state = 'closed' AND o.state <> 'closed' THEN 'case.closed' ELSE 'case.changed' END,
                c.updated_at, case_told(c))
            FROM old_rows o JOIN cases c USING (case_id);
        END IF;
    END IF;
    RETURN NULL;
END $$
"""

TRIGGERS = """
CREATE TRIGGER decisions_tell AFTER INSERT ON decisions REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_decisions();
CREATE TRIGGER cases_tell_opened AFTER INSERT ON cases REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_cases();
CREATE TRIGGER cases_tell_changed AFTER UPDATE ON cases REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_cases();
"""


def upgrade() -> None:
    """Create everything; additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (WEBHOOKS, MESSAGES, TRIGGERS):
        if script is TRIGGERS:
            for function in (TELL, DECISIONS, CASE, CASES):
                op.execute(function)
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
