"""Indexes for large queues: lists of any state, sizes of inboxes, and decisions by typology and by high risk.

Large tables: docs/operations.md says how to build those of the decisions beforehand, while workers write.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What stands after the order is tested within the index: a filter that finds little reads no rows for nothing.
# ix_cases_inbox holds what an inbox's sizes are counted from, so that they are read from the index alone.
CASES = """
CREATE INDEX ix_cases_priority ON cases (priority DESC, case_id, outcome, typology, inbox, review, escalated_at);
DROP INDEX ix_cases_inbox;
CREATE INDEX ix_cases_inbox ON cases (inbox, priority DESC, case_id)
    INCLUDE (snoozed_until, claimed_by, claimed_until, assigned_to, escalated_at) WHERE state <> 'closed';
"""

# listing.RISKY is the partial index's bound.
DECISIONS = """
CREATE INDEX ix_decisions_typology ON decisions (typology, event_time, decision_id, event_type);
CREATE INDEX ix_decisions_risk ON decisions (event_time, decision_id, risk, outcome, event_type, typology)
    WHERE risk >= 0.5;
CREATE INDEX ix_decisions_by_outcome ON decisions (outcome, event_time, decision_id, event_type, typology);
DROP INDEX ix_decisions_outcome;
"""


def upgrade() -> None:
    """Build them; workers wait meanwhile. It stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '300s'")
    op.execute("SET LOCAL maintenance_work_mem = '256MB'")
    for script in (CASES, DECISIONS):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
