"""Tenants: whose every row is, keys that keep equal ids of two tenants apart, and row-level security between them."""

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ROLE = "fraudguard_tenant"

# What the tenants' role may do with a tenant's own rows; none: a tenant's data that only the house touches. A table
# that is not here is the house's, and the role may do nothing with it.
RIGHTS = {
    "account_state": "",
    "window_counts": "",
    "entity_counts": "SELECT",
    "event_ids": "SELECT",
    "decisions": "SELECT",
    "labels": "SELECT",
    "evidence": "SELECT",
    "evidence_wishes": "SELECT, INSERT, UPDATE",
    "cases": "SELECT, UPDATE",
    "alerts": "SELECT",
    "alert_dispositions": "SELECT, INSERT",
    "dispositions": "SELECT, INSERT",
    "case_notes": "SELECT, INSERT",
    "case_files": "SELECT, INSERT",
    "case_links": "SELECT, INSERT",
    "outbox": "SELECT, INSERT, UPDATE, DELETE",
    "audit": "SELECT",
    "api_keys": "",
    "users": "",
    "repeats": "",
    "webhooks": "SELECT, INSERT, UPDATE, DELETE",
    "webhook_messages": "SELECT, UPDATE",
}

# Roles are the server's, not the database's: another one may have made it, at this moment too. Whether it can be turned
# to is tried, for being a member is not enough since PostgreSQL 16.
MAKE_ROLE = f"""
DO $$
DECLARE
    own text := current_setting('role');
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN
        BEGIN
            CREATE ROLE {ROLE} NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END IF;
    BEGIN
        PERFORM set_config('role', '{ROLE}', true);
        PERFORM set_config('role', own, true);
    EXCEPTION WHEN insufficient_privilege THEN
        EXECUTE format('GRANT {ROLE} TO %I', current_user);
    END;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
        MESSAGE = format('the role {ROLE} is missing, and %s may not make it: an administrator of this server runs'
                         ' CREATE ROLE {ROLE} NOLOGIN; GRANT {ROLE} TO %I', current_user, current_user);
END $$
"""

# A constant default costs no rewrite. What stands here already is the house's.
COLUMN = "ALTER TABLE {table} ADD COLUMN tenant text NOT NULL DEFAULT ''"

# Without a tenant the setting is null, or '' where one was set before: then no row is anybody's.
POLICY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants ON {table} TO fraudguard_tenant
    USING (tenant = nullif(current_setting('fraudguard.tenant', true), ''))
    WITH CHECK (tenant = nullif(current_setting('fraudguard.tenant', true), ''))
"""

# The ids come first: who looks for one needs no tenant to use the index. account_state, entity_counts and window_counts
# keep their keys, for there the ids themselves are scoped (fraudguard/tenants.py).
KEYS = """
CREATE UNIQUE INDEX event_ids_key ON event_ids (event_id, tenant);
ALTER TABLE event_ids DROP CONSTRAINT event_ids_pkey,
    ADD CONSTRAINT event_ids_pkey PRIMARY KEY USING INDEX event_ids_key;
ALTER TABLE event_ids DROP CONSTRAINT event_ids_account_id_sequence_key;
CREATE UNIQUE INDEX ux_event_ids_sequence ON event_ids (account_id, sequence, tenant);
ALTER TABLE labels DROP CONSTRAINT labels_pkey, ADD PRIMARY KEY (event_id, tenant);
DROP INDEX ux_cases_unclosed;
CREATE UNIQUE INDEX ux_cases_unclosed ON cases (account_id, tenant) WHERE state <> 'closed';
ALTER TABLE webhook_messages DROP CONSTRAINT webhook_messages_webhook_fkey;
ALTER TABLE webhooks DROP CONSTRAINT webhooks_pkey, ADD PRIMARY KEY (tenant, name);
ALTER TABLE webhook_messages ADD FOREIGN KEY (tenant, webhook) REFERENCES webhooks ON DELETE CASCADE;
"""

# Whatever belongs to a case is its tenant's: no deed, of the house either, puts a row of one into another's case.
OF_CASES = """
ALTER TABLE cases ADD CONSTRAINT cases_of_tenant UNIQUE (case_id, tenant);
ALTER TABLE cases DROP CONSTRAINT cases_merged_into_fkey,
    ADD FOREIGN KEY (merged_into, tenant) REFERENCES cases (case_id, tenant);
ALTER TABLE alerts DROP CONSTRAINT alerts_case_id_fkey,
    ADD FOREIGN KEY (case_id, tenant) REFERENCES cases (case_id, tenant);
ALTER TABLE dispositions DROP CONSTRAINT dispositions_case_id_fkey,
    ADD FOREIGN KEY (case_id, tenant) REFERENCES cases (case_id, tenant);
ALTER TABLE case_notes DROP CONSTRAINT case_notes_case_id_fkey,
    ADD FOREIGN KEY (case_id, tenant) REFERENCES cases (case_id, tenant);
ALTER TABLE case_files DROP CONSTRAINT case_files_case_id_fkey,
    ADD FOREIGN KEY (case_id, tenant) REFERENCES cases (case_id, tenant);
ALTER TABLE case_links DROP CONSTRAINT case_links_a_fkey, DROP CONSTRAINT case_links_b_fkey,
    ADD FOREIGN KEY (a, tenant) REFERENCES cases (case_id, tenant),
    ADD FOREIGN KEY (b, tenant) REFERENCES cases (case_id, tenant);
ALTER TABLE alerts ADD CONSTRAINT alerts_of_tenant UNIQUE (decision_id, tenant);
ALTER TABLE alert_dispositions DROP CONSTRAINT alert_dispositions_decision_id_fkey,
    ADD FOREIGN KEY (decision_id, tenant) REFERENCES alerts (decision_id, tenant);
"""

# A tenant's own lists, in their order. The house's decisions are in no index that only tenants need.
INDEXES = """
CREATE INDEX ix_cases_tenant_queue ON cases (tenant, priority DESC, case_id) WHERE state <> 'closed';
CREATE INDEX ix_cases_tenant_closed ON cases (tenant, closed_at DESC, case_id) WHERE state = 'closed';
CREATE INDEX ix_decisions_tenant ON decisions (tenant, event_time, decision_id) WHERE tenant <> '';
"""

# Waits while an activation is under way, then holds the next one off until the caller's transaction ends (0002).
# A worker of the version before would put tenants' events among the house's. It asks for the activation first of all in
# every batch: this error it takes for a store that is not there, and tries again until it is replaced.
ACTIVATION = """
CREATE FUNCTION rules_activation_held() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('fraudguard rulebook'));
    RETURN (SELECT coalesce(max(id), 0) FROM rule_activations);
END $$
"""
HOLD = """
CREATE OR REPLACE FUNCTION rules_activation() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RAISE EXCEPTION 'the database knows tenants, this worker does not: start one of the new version'
        USING ERRCODE = 'cannot_connect_now';
END $$
"""

# The house's webhooks hear everything, a tenant's what is its own. As the owner: the house hears of a tenant's deed.
TELL = """
CREATE FUNCTION tell_webhooks(kind text, at timestamptz, data jsonb, whose text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO webhook_messages (tenant, webhook, body, created_at, due_at)
    SELECT tenant, name, json_build_object('type', kind, 'timestamp',
           to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'data', data), at, at
    FROM webhooks WHERE kind = ANY (kinds) AND tenant IN ('', whose) FOR KEY SHARE
$$
"""
DECISIONS_TOLD = """
CREATE OR REPLACE FUNCTION tell_of_decisions() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM webhooks) THEN
        PERFORM tell_webhooks('decision.' || d.outcome, d.decided_at, jsonb_build_object(
            'decision_id', d.decision_id, 'event_id', d.event_id, 'account_id', d.account_id,
            'event_type', d.event_type, 'outcome', d.outcome, 'risk', d.risk, 'typology', d.typology,
            'reasons', d.reasons, 'degraded', d.degraded, 'tenant', d.tenant), d.tenant)
        FROM new_rows d;
    END IF;
    RETURN NULL;
END $$
"""
CASE_TOLD = """
CREATE OR REPLACE FUNCTION case_told(c cases) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object(
        'case_id', c.case_id, 'account_id', c.account_id, 'state', c.state, 'outcome', c.outcome,
        'typology', c.typology, 'alerts', c.alerts, 'expected_loss', c.expected_loss, 'disposition', c.disposition,
        'tenant', c.tenant)
$$
"""
CASES_TOLD = """
CREATE OR REPLACE FUNCTION tell_of_cases() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM webhooks) THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM tell_webhooks('case.opened', c.updated_at, case_told(c), c.tenant)
            FROM new_rows n JOIN cases c USING (case_id);
        ELSE
            PERFORM tell_webhooks(
                CASE WHEN c.state = 'closed' AND o.state <> 'closed' THEN 'case.closed' ELSE 'case.changed' END,
                c.updated_at, case_told(c), c.tenant)
            FROM old_rows o JOIN cases c USING (case_id);
        END IF;
    END IF;
    RETURN NULL;
END $$
"""
FUNCTIONS = (ACTIVATION, HOLD, TELL, "DROP FUNCTION tell_webhooks(text, timestamptz, jsonb)")
FUNCTIONS += (DECISIONS_TOLD, CASE_TOLD, CASES_TOLD)

# How a tenant's name may look; the worker and the API refuse others before.
NAMES = """
ALTER TABLE {table} ADD CONSTRAINT {table}_tenant CHECK (tenant ~ '^([A-Za-z0-9][A-Za-z0-9._-]{{0,63}})?$')
"""
NAMED = ("api_keys", "users", "webhooks")  # where a person chose the name


def upgrade() -> None:
    """Additive but for keys, which are built anew while writers wait; stops rather than waits when a lock is held."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '300s'")  # the largest index: of every event's id
    op.execute(MAKE_ROLE)
    for table in RIGHTS:
        op.execute(COLUMN.format(table=table))
    for script in (KEYS, OF_CASES, INDEXES):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
    for table in NAMED:
        op.execute(text(NAMES.format(table=table).replace(":", "\\:")))
    for function in FUNCTIONS:
        op.execute(function)
    schema = op.get_bind().scalar(text("SELECT quote_ident(current_schema())"))
    op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {ROLE}")
    for table, rights in RIGHTS.items():
        for statement in POLICY.format(table=table).split(";"):
            op.execute(statement)
        if rights:
            op.execute(f"GRANT {rights} ON {table} TO {ROLE}")
