"""People beside machines: local accounts and their sessions, and the roles of an inbox."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ROLES = """
ALTER TABLE api_keys DROP CONSTRAINT api_keys_role_check;
UPDATE api_keys SET role = 'rule_editor' WHERE role = 'risk_manager';
ALTER TABLE api_keys ADD CONSTRAINT api_keys_role_check
    CHECK (role IN ('service', 'viewer', 'analyst', 'lead', 'rule_editor', 'admin'));
"""

# Never deleted, so that a name in the audit trail stays one person's. secret: the sealed one of one-time codes, null
# without. code_step: the time step of the last code that was taken, so that none is taken twice. failures: attempts
# since the last sign-in that went well.
USERS = """
CREATE TABLE users (
    name          text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._@-]{0,63}$'),
    role          text NOT NULL CHECK (role IN ('viewer', 'analyst', 'lead', 'rule_editor', 'admin')),
    password_hash text NOT NULL,
    secret        bytea,
    code_step     bigint NOT NULL DEFAULT 0,
    failures      integer NOT NULL DEFAULT 0,
    locked_until  timestamptz,
    created_at    timestamptz NOT NULL,
    disabled_at   timestamptz
);
"""

# token_hash: SHA-256 of what the cookie holds.
SESSIONS = """
CREATE TABLE sessions (
    token_hash bytea PRIMARY KEY,
    name       text NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL
);
CREATE INDEX ix_sessions_name ON sessions (name);
"""

# What a POST with an idempotency key was answered with; status null: not answered yet.
REPEATS = """
CREATE TABLE repeats (
    caller      text NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    begun_at    timestamptz NOT NULL,
    status      integer,
    headers     jsonb,
    body        bytea,
    PRIMARY KEY (caller, key)
);
CREATE INDEX ix_repeats_begun_at ON repeats (begun_at);
"""


def upgrade() -> None:
    """Create everything, and give rule editors their new name; stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (ROLES, USERS, SESSIONS, REPEATS):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
