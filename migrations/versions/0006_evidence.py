"""Evidence: what moved a decision's risk, and whose evidence somebody waits for."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# risk: what the model says of everything together. body: the contributions, the greatest first. No foreign key: these
# rows come after the decision's commit and may be made for a decision of any month.
EVIDENCE = """
CREATE TABLE evidence (
    decision_id text PRIMARY KEY,
    model       text NOT NULL,
    risk        double precision NOT NULL CHECK (risk BETWEEN 0 AND 1),
    body        json NOT NULL,
    made_at     timestamptz NOT NULL
);
"""

# claimed_until: while a worker makes it. failed: why it could not be made, the last time.
WISHES = """
CREATE TABLE evidence_wishes (
    decision_id   text PRIMARY KEY,
    asked_at      timestamptz NOT NULL,
    claimed_until timestamptz,
    failed        text,
    failed_at     timestamptz
);
"""

WAITING = "CREATE INDEX evidence_wishes_waiting ON evidence_wishes (asked_at) WHERE failed IS NULL"


def upgrade() -> None:
    """Create everything; additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (EVIDENCE, WISHES, WAITING):
        op.execute(script)
