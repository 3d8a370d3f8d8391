"""The rule book's releases, watch lists, counters of declared windows, and feedback counts by IP address."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The sources of both versions are in `documents`. parent: the release it was made from, 0 for none.
RULE_BOOK = """
CREATE TABLE rule_releases (
    number         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    parent         bigint NOT NULL CHECK (parent >= 0),
    rules_version  text NOT NULL,
    policy_version text NOT NULL,
    author         text NOT NULL,
    via            text NOT NULL CHECK (via IN ('files', 'api')),
    note           text NOT NULL,
    diff           text NOT NULL,
    at             timestamptz NOT NULL
);
CREATE TABLE rule_reviews (
    number  bigint NOT NULL REFERENCES rule_releases,
    actor   text NOT NULL,
    verdict text NOT NULL CHECK (verdict IN ('approve', 'reject')),
    note    text NOT NULL,
    at      timestamptz NOT NULL,
    PRIMARY KEY (number, actor)
);
CREATE TABLE rule_activations (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    number bigint NOT NULL REFERENCES rule_releases,
    actor  text NOT NULL,
    note   text NOT NULL,
    at     timestamptz NOT NULL
);
CREATE INDEX ix_rule_activations_number ON rule_activations (number, id);
"""

# Waits while an activation is under way, then holds the next one off until the caller's transaction ends. Volatile:
# each statement in here sees what was committed before it began, so the head is read after the lock was got.
ACTIVATION = """
CREATE FUNCTION rules_activation() RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('fraudguard rulebook'));
    RETURN (SELECT coalesce(max(id), 0) FROM rule_activations);
END $$
"""

# Collation C: pages go by code point and a prefix is a range of the key.
LISTS = """
CREATE TABLE list_entries (
    list       text COLLATE "C" NOT NULL,
    value      text COLLATE "C" NOT NULL,
    reason     text NOT NULL,
    owner      text NOT NULL,
    source     text NOT NULL,
    added_at   timestamptz NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (list, value)
);
CREATE INDEX ix_list_entries_value ON list_entries (value);
"""

# total, peak: numeric, for hundredths of an 18-digit amount do not fit a bigint. members: null for no bit set.
WINDOWS = """
CREATE TABLE window_counts (
    window_key text NOT NULL,
    entity_id  text NOT NULL,
    bucket     bigint NOT NULL,
    count      bigint NOT NULL,
    total      numeric NOT NULL,
    peak       numeric,
    members    bit(1024),
    PRIMARY KEY (window_key, entity_id, bucket)
) WITH (fillfactor = 70);
"""

COUNTS_BY_IP = """
ALTER TABLE entity_counts DROP CONSTRAINT entity_counts_kind_check;
ALTER TABLE entity_counts ADD CONSTRAINT entity_counts_kind_check
    CHECK (kind IN ('counterparty', 'device', 'ip', 'merchant')) NOT VALID;
ALTER TABLE entity_counts VALIDATE CONSTRAINT entity_counts_kind_check;
"""

# Back-fill asks under the activation's lock for what was decided just now. (BRIN waits for autovacuum before it helps.)
DECIDED = "CREATE INDEX ix_decisions_decided ON decisions (decided_at)"

APPEND_ONLY = ("rule_releases", "rule_reviews", "rule_activations")


def upgrade() -> None:
    """Create everything; additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (RULE_BOOK, LISTS, WINDOWS, COUNTS_BY_IP, DECIDED):
        for statement in filter(str.strip, script.split(";")):
            op.execute(statement)
    op.execute(ACTIVATION)
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
