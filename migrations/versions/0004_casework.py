"""Casework: versions, claims, inboxes and due times of cases, what people attach to them, and a chained audit trail."""

import hashlib
import json
from datetime import UTC

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# version: +1 with every change. changed_by: who made it, '' for a new alert. due_at: by the policy of its alerts; the
# default is for workers of the version before, which go on meanwhile.
# money_held: in the base currency, over alerted payments that were stopped. top_line: of the newest riskiest alert,
# masked. merged_into: the case that its alerts are now judged with; without a disposition until that one has one.
# review: of a second person, null outside of the sample. priority and inbox: docs/cases.md.
CASES = """
ALTER TABLE cases
    ADD COLUMN version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD COLUMN changed_by text NOT NULL DEFAULT '',
    ADD COLUMN claimed_until timestamptz,
    ADD COLUMN assigned_to text,
    ADD COLUMN team text,
    ADD COLUMN due_at timestamptz,
    ADD COLUMN snoozed_until timestamptz,
    ADD COLUMN escalated_at timestamptz,
    ADD COLUMN money_held double precision NOT NULL DEFAULT 0,
    ADD COLUMN top_line text NOT NULL DEFAULT '',
    ADD COLUMN merged_into text REFERENCES cases CHECK (merged_into <> case_id),
    ADD COLUMN review text CHECK (review IN ('waiting', 'agreed', 'disagreed')),
    ADD COLUMN reviewed_by text,
    ADD CONSTRAINT cases_claimed CHECK (claimed_by IS NULL OR claimed_until IS NOT NULL) NOT VALID;
UPDATE cases SET claimed_by = NULL WHERE claimed_by IS NOT NULL;
UPDATE cases SET due_at = opened_at
    + CASE outcome WHEN 'block' THEN interval '30 minutes' WHEN 'review' THEN interval '4 hours'
                   ELSE interval '24 hours' END;
ALTER TABLE cases
    ALTER COLUMN due_at SET NOT NULL,
    ALTER COLUMN due_at SET DEFAULT now() + interval '4 hours',
    VALIDATE CONSTRAINT cases_claimed,
    DROP CONSTRAINT cases_closed,
    ADD CONSTRAINT cases_closed CHECK ((state = 'closed') = (closed_at IS NOT NULL AND closed_by IS NOT NULL)
        AND (disposition IS NULL) = (reason IS NULL)
        AND (CASE WHEN state = 'closed' THEN merged_into IS NOT NULL OR disposition IS NOT NULL
                  ELSE merged_into IS NULL AND disposition IS NULL END)),
    ADD COLUMN inbox text NOT NULL GENERATED ALWAYS AS (coalesce(team, typology, 'unscored')) STORED,
    ADD COLUMN priority double precision NOT NULL GENERATED ALWAYS AS (
        ln(1 + greatest(expected_loss, 0)) / ln(2)
        - extract(epoch FROM due_at - timestamptz '2026-01-01 00:00:00+00')::double precision / 3600) STORED;
DROP INDEX ix_cases_queue;
CREATE INDEX ix_cases_queue ON cases (priority DESC, case_id) WHERE state <> 'closed';
CREATE INDEX ix_cases_inbox ON cases (inbox, priority DESC, case_id) WHERE state <> 'closed';
CREATE INDEX ix_cases_closed ON cases (closed_at DESC, case_id) WHERE state = 'closed';
CREATE INDEX ix_cases_claimed ON cases (claimed_by) WHERE state <> 'closed' AND claimed_by IS NOT NULL;
CREATE INDEX ix_cases_assigned ON cases (assigned_to) WHERE state <> 'closed' AND assigned_to IS NOT NULL;
CREATE INDEX ix_cases_merged ON cases (merged_into) WHERE merged_into IS NOT NULL;
CREATE INDEX ix_cases_review ON cases (closed_at DESC, case_id) WHERE review = 'waiting';
"""

# A case may be disposed of again: after it was reopened, and by a second review. The newest row is what holds.
# alert_dispositions: of single alerts, in place of their case's; the newest row holds.
DISPOSITIONS = """
ALTER TABLE dispositions DROP CONSTRAINT dispositions_pkey;
ALTER TABLE dispositions ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;
ALTER TABLE dispositions ADD CONSTRAINT dispositions_disposition_check
    CHECK (disposition IN ('confirmed_fraud', 'suspicious', 'false_positive', 'reopened'));
CREATE INDEX ix_dispositions_case ON dispositions (case_id, id);
CREATE TABLE alert_dispositions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    decision_id text NOT NULL REFERENCES alerts,
    disposition text NOT NULL CHECK (disposition IN ('confirmed_fraud', 'suspicious', 'false_positive')),
    reason      text NOT NULL,
    actor       text NOT NULL,
    at          timestamptz NOT NULL
);
CREATE INDEX ix_alert_dispositions ON alert_dispositions (decision_id, id);
"""

# not_before: until then the case may be reopened. taken_at: a publisher has read it, so it may have left.
OUTBOX = """
ALTER TABLE outbox
    ADD COLUMN case_id text,
    ADD COLUMN not_before timestamptz,
    ADD COLUMN taken_at timestamptz;
CREATE INDEX ix_outbox_case ON outbox (case_id) WHERE case_id IS NOT NULL;
"""

# body: of an allowed type and a bounded size (decisions/case_files.py). case_links: once for both, a before b.
ATTACHED = """
CREATE TABLE case_notes (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id text NOT NULL REFERENCES cases,
    body    text NOT NULL,
    actor   text NOT NULL,
    at      timestamptz NOT NULL
);
CREATE INDEX ix_case_notes_case ON case_notes (case_id, id);
CREATE TABLE case_files (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    case_id    text NOT NULL REFERENCES cases,
    name       text NOT NULL,
    media_type text NOT NULL,
    bytes      bigint NOT NULL,
    sha256     text NOT NULL,
    body       bytea NOT NULL,
    actor      text NOT NULL,
    at         timestamptz NOT NULL,
    UNIQUE (case_id, sha256)
);
ALTER TABLE case_files ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE case_links (
    a      text NOT NULL REFERENCES cases,
    b      text NOT NULL REFERENCES cases CHECK (a < b),
    reason text NOT NULL,
    actor  text NOT NULL,
    at     timestamptz NOT NULL,
    PRIMARY KEY (a, b)
);
CREATE INDEX ix_case_links_b ON case_links (b);
"""

# One row: the end of the chain, which every audited deed locks until it commits.
AUDIT = """
ALTER TABLE audit ADD COLUMN prev_hash text, ADD COLUMN hash text;
CREATE TABLE audit_chain (
    id   boolean PRIMARY KEY DEFAULT true CHECK (id),
    rows bigint NOT NULL,
    hash text NOT NULL
);
ALTER TABLE audit DISABLE TRIGGER audit_append_only;
"""
AUDIT_END = """
ALTER TABLE audit ENABLE TRIGGER audit_append_only;
ALTER TABLE audit ALTER COLUMN prev_hash SET NOT NULL, ALTER COLUMN hash SET NOT NULL;
CREATE UNIQUE INDEX ux_audit_prev_hash ON audit (prev_hash)
"""

APPEND_ONLY = ("alert_dispositions", "case_notes", "case_files", "case_links")


def _chain() -> None:
    """Chain what stands in the trail already; decisions/audit.py goes on from there."""
    connection = op.get_bind()
    rows, last = 0, "0" * 64
    for row in connection.execute(text("SELECT id, at, actor, action, subject, detail FROM audit ORDER BY id")).all():
        fields = {
            "at": row.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "detail": row.detail,
            "prev_hash": last,
        }
        body = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = hashlib.sha256(body.encode()).hexdigest()
        connection.execute(
            text("UPDATE audit SET prev_hash = :last, hash = :digest WHERE id = :id"),
            {"last": last, "digest": digest, "id": row.id},
        )
        rows, last = rows + 1, digest
    connection.execute(text("INSERT INTO audit_chain (rows, hash) VALUES (:rows, :hash)"), {"rows": rows, "hash": last})


def upgrade() -> None:
    """Additive but for one constraint and one index; it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '300s'")  # it rewrites the cases
    for script in (CASES, DISPOSITIONS, OUTBOX, ATTACHED, AUDIT):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
    _chain()
    for statement in filter(str.strip, AUDIT_END.split(";")):
        op.execute(statement)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
