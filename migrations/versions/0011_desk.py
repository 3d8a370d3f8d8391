"""The analyst's desk: step-up asked of the customer, orders of the queue, and which accounts alerts have in common."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# step_up_at: when somebody last asked that the customer prove who they are.
CASES = """
ALTER TABLE cases ADD COLUMN step_up_at timestamptz;
CREATE INDEX ix_cases_loss ON cases (expected_loss DESC, case_id) WHERE state <> 'closed';
CREATE INDEX ix_cases_due ON cases (due_at, case_id) WHERE state <> 'closed';
CREATE INDEX ix_cases_opened ON cases (opened_at DESC, case_id) WHERE state <> 'closed';
"""

# Of alerted payments, what another account's may share with them. Written with the alert, never changed.
ENTITIES = """
CREATE TABLE alert_entities (
    kind        text NOT NULL CHECK (kind IN ('counterparty', 'merchant', 'device', 'ip')),
    entity_id   text NOT NULL,
    event_time  timestamptz NOT NULL,
    decision_id text NOT NULL,
    account_id  text NOT NULL,
    tenant      text NOT NULL DEFAULT '',
    FOREIGN KEY (decision_id, tenant) REFERENCES alerts (decision_id, tenant),
    PRIMARY KEY (kind, entity_id, event_time, decision_id)
);
CREATE INDEX ix_alert_entities_decision ON alert_entities (decision_id);
INSERT INTO alert_entities (kind, entity_id, event_time, decision_id, account_id, tenant)
SELECT e.kind, e.entity_id, a.event_time, a.decision_id, a.account_id, a.tenant
FROM alerts a
JOIN decisions d ON d.event_time = a.event_time AND d.decision_id = a.decision_id
CROSS JOIN LATERAL (VALUES
    ('counterparty', d.body -> 'event' ->> 'counterparty_id'), ('merchant', d.body -> 'event' ->> 'merchant_id'),
    ('device', d.body -> 'event' ->> 'device_id'), ('ip', d.body -> 'event' ->> 'ip')) e (kind, entity_id)
WHERE a.event_type = 'transaction' AND e.entity_id IS NOT NULL;
"""

# As of every tenant's table (0009).
ROWS = """
ALTER TABLE alert_entities ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants ON alert_entities TO fraudguard_tenant
    USING (tenant = nullif(current_setting('fraudguard.tenant', true), ''))
    WITH CHECK (tenant = nullif(current_setting('fraudguard.tenant', true), ''));
GRANT SELECT ON alert_entities TO fraudguard_tenant;
"""

# A case's own event, beside case.changed: the payment system asks the customer when it hears of it.
STEP_UP = """
CREATE FUNCTION tell_of_step_ups() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM webhooks WHERE 'case.step_up' = ANY (kinds)) THEN
        PERFORM tell_webhooks('case.step_up', c.updated_at, case_told(c), c.tenant)
        FROM old_rows o JOIN cases c USING (case_id)
        WHERE c.step_up_at IS NOT NULL AND c.step_up_at IS DISTINCT FROM o.step_up_at;
    END IF;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE TRIGGER cases_tell_step_up AFTER UPDATE ON cases REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION tell_of_step_ups()
"""


def upgrade() -> None:
    """Additive; it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '300s'")  # it reads the alerts' decisions
    for script in (CASES, ENTITIES, ROWS):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
    op.execute(
        "CREATE TRIGGER alert_entities_append_only BEFORE UPDATE OR DELETE ON alert_entities"
        " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(STEP_UP)
    op.execute(TRIGGER)
