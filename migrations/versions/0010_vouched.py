"""People whom an OpenID provider vouches for, and their sign-ins under way; webhooks that are switched off."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Either a password or a provider's word, never both: neither can be used to get at the other's account.
USERS = """
ALTER TABLE users ALTER COLUMN password_hash DROP NOT NULL;
ALTER TABLE users ADD COLUMN issuer text, ADD COLUMN subject text;
ALTER TABLE users ADD CONSTRAINT users_proof_check
    CHECK ((issuer IS NULL) = (subject IS NULL) AND (password_hash IS NULL) = (issuer IS NOT NULL)
           AND (secret IS NULL OR password_hash IS NOT NULL));
CREATE UNIQUE INDEX ix_users_issuer_subject ON users (issuer, subject) WHERE issuer IS NOT NULL;
"""

# secret_hash: SHA-256 of what the cookie of a browser holds that was sent to the provider. destination: where in the
# console it goes once it is back.
SIGN_INS = """
CREATE TABLE sign_ins (
    secret_hash bytea PRIMARY KEY,
    destination text NOT NULL,
    begun_at    timestamptz NOT NULL
);
"""

# off_at: when its address answered 410 Gone; its kinds are none since.
WEBHOOKS = "ALTER TABLE webhooks ADD COLUMN off_at timestamptz"

# What a case's accounts lost without an alert.
LABELS = "CREATE INDEX ix_labels_fraud ON labels (account_id) WHERE verdict = 'fraud'"


def upgrade() -> None:
    """Additive but for a constraint that is lifted; stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (USERS, SIGN_INS, WEBHOOKS, LABELS):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
