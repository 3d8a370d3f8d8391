"""Which decisions rules hit: found by time, without reading those that none did."""

from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None

# Few decisions are hit by a rule. The words are those of rulehits.py's statements: PostgreSQL compares them.
HITS = "CREATE INDEX ix_decisions_hits ON decisions (event_time) WHERE (body ->> 'hits') <> '[]'"


def upgrade() -> None:
    """Additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute(HITS)
