"""Alerts by the time of their event: what a week's alerts were worth, without reading every alert there ever was."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index; additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    op.execute("CREATE INDEX ix_alerts_event_time ON alerts (event_time)")
