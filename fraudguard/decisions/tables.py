"""The tables as queries see them. Knows columns and types, nothing of how they are filled.

`migrations/` is what creates them, with keys, indexes and triggers; a test compares the columns.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BIT, JSON, JSONB

METADATA = MetaData()
_TIME = DateTime(timezone=True)


def _tenant() -> Column[str]:
    """Whose the row is: '' for the house's own. Such a table has a row-level policy; one without is the house's."""
    return Column("tenant", Text, nullable=False, server_default="")


EVENT_IDS = Table(
    "event_ids",
    METADATA,
    Column("event_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_time", _TIME, nullable=False),
    Column("decision_id", Text, nullable=False),
    _tenant(),
)

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("event_time", _TIME, primary_key=True),
    Column("decision_id", Text, primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("risk", Double),
    Column("typology", Text),
    Column("reasons", ARRAY(Text), nullable=False),
    Column("degraded", Boolean, nullable=False),
    Column("decided_at", _TIME, nullable=False),
    Column("body", JSON, nullable=False),
    Column("sealed_text", LargeBinary),
    _tenant(),
)

LABELS = Table(
    "labels",
    METADATA,
    Column("event_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("event_time", _TIME, nullable=False),
    Column("target_event_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("typology", Text),
    _tenant(),
)

ACCOUNT_STATE = Table(
    "account_state",
    METADATA,
    Column("account_id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _tenant(),
)

ENTITY_COUNTS = Table(
    "entity_counts",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("entity_id", Text, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("transactions", BigInteger, nullable=False),
    Column("frauds", BigInteger, nullable=False),
    _tenant(),
)

DOCUMENTS = Table(
    "documents",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

CASES = Table(
    "cases",
    METADATA,
    Column("case_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("opened_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
    Column("expected_loss", Double, nullable=False),
    Column("top_risk", Double),
    Column("typology", Text),
    Column("outcome", Text, nullable=False),
    Column("alerts", Integer, nullable=False),
    Column("claimed_by", Text),
    Column("disposition", Text),
    Column("reason", Text),
    Column("closed_at", _TIME),
    Column("closed_by", Text),
    Column("version", BigInteger, nullable=False),
    Column("changed_by", Text, nullable=False),
    Column("claimed_until", _TIME),
    Column("assigned_to", Text),
    Column("team", Text),
    Column("due_at", _TIME, nullable=False),
    Column("snoozed_until", _TIME),
    Column("escalated_at", _TIME),
    Column("money_held", Double, nullable=False),
    Column("top_line", Text, nullable=False),
    Column("merged_into", Text),
    Column("review", Text),
    Column("reviewed_by", Text),
    Column("inbox", Text, nullable=False),
    Column("priority", Double, nullable=False),
    _tenant(),
)

ALERTS = Table(
    "alerts",
    METADATA,
    Column("decision_id", Text, primary_key=True),
    Column("case_id", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("event_time", _TIME, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("risk", Double),
    Column("typology", Text),
    Column("amount_base", Double),
    _tenant(),
)

DISPOSITIONS = Table(
    "dispositions",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("case_id", Text, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    _tenant(),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("body", JSON, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("published_at", _TIME),
    Column("case_id", Text),
    Column("not_before", _TIME),
    Column("taken_at", _TIME),
    _tenant(),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("secret_hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("revoked_at", _TIME),
    _tenant(),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("at", _TIME, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("prev_hash", Text, nullable=False),
    Column("hash", Text, nullable=False),
    _tenant(),
)

RULE_RELEASES = Table(
    "rule_releases",
    METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("parent", BigInteger, nullable=False),
    Column("rules_version", Text, nullable=False),
    Column("policy_version", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("diff", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

RULE_REVIEWS = Table(
    "rule_reviews",
    METADATA,
    Column("number", BigInteger, primary_key=True),
    Column("actor", Text, primary_key=True),
    Column("verdict", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

RULE_ACTIVATIONS = Table(
    "rule_activations",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

LIST_ENTRIES = Table(
    "list_entries",
    METADATA,
    Column("list", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("added_at", _TIME, nullable=False),
    Column("expires_at", _TIME),
)

WINDOW_COUNTS = Table(
    "window_counts",
    METADATA,
    Column("window_key", Text, primary_key=True),
    Column("entity_id", Text, primary_key=True),
    Column("bucket", BigInteger, primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("total", Numeric, nullable=False),
    Column("peak", Numeric),
    Column("members", BIT(1024)),
    _tenant(),
)

MODELS = Table(
    "models",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("graph", Text, nullable=False),
    Column("tokenizer", Text, nullable=False),
    Column("location", Text, nullable=False),
    Column("metrics", JSON(none_as_null=True)),
    Column("added_at", _TIME, nullable=False),
    Column("added_by", Text, nullable=False),
)

MODEL_STEPS = Table(
    "model_steps",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("action", Text, nullable=False),
    Column("digest", Text),
    Column("champion", Text),
    Column("challenger", Text),
    Column("forced", Boolean, nullable=False),
    Column("actor", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

SHADOW_SCORES = Table(
    "shadow_scores",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("decision_id", Text, primary_key=True),
    Column("event_time", _TIME, nullable=False),
    Column("model", Text, nullable=False),
    Column("risk", Double, nullable=False),
    Column("typology", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("at", _TIME, nullable=False),
)

ALERT_DISPOSITIONS = Table(
    "alert_dispositions",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("decision_id", Text, nullable=False),
    Column("disposition", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    _tenant(),
)

CASE_NOTES = Table(
    "case_notes",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("case_id", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    _tenant(),
)

CASE_FILES = Table(
    "case_files",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("case_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    _tenant(),
)

CASE_LINKS = Table(
    "case_links",
    METADATA,
    Column("a", Text, primary_key=True),
    Column("b", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("at", _TIME, nullable=False),
    _tenant(),
)

AUDIT_CHAIN = Table(
    "audit_chain",
    METADATA,
    Column("id", Boolean, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
)

USERS = Table(
    "users",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("password_hash", Text),
    Column("secret", LargeBinary),
    Column("code_step", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("locked_until", _TIME),
    Column("created_at", _TIME, nullable=False),
    Column("disabled_at", _TIME),
    _tenant(),
    Column("issuer", Text),
    Column("subject", Text),
)

SIGN_INS = Table(
    "sign_ins",
    METADATA,
    Column("secret_hash", LargeBinary, primary_key=True),
    Column("destination", Text, nullable=False),
    Column("begun_at", _TIME, nullable=False),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("seen_at", _TIME, nullable=False),
)

REPEATS = Table(
    "repeats",
    METADATA,
    Column("caller", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("begun_at", _TIME, nullable=False),
    Column("status", Integer),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    _tenant(),
)

WEBHOOKS = Table(
    "webhooks",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("created_by", Text, nullable=False),
    _tenant(),
    Column("off_at", _TIME),
)

WEBHOOK_MESSAGES = Table(
    "webhook_messages",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("webhook", Text, nullable=False),
    Column("body", JSON, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("due_at", _TIME, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("problem", Text),
    Column("done_at", _TIME),
    Column("given_up", Boolean, nullable=False),
    _tenant(),
)

EVIDENCE = Table(
    "evidence",
    METADATA,
    Column("decision_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("risk", Double, nullable=False),
    Column("body", JSON, nullable=False),
    Column("made_at", _TIME, nullable=False),
    _tenant(),
)

EVIDENCE_WISHES = Table(
    "evidence_wishes",
    METADATA,
    Column("decision_id", Text, primary_key=True),
    Column("asked_at", _TIME, nullable=False),
    Column("claimed_until", _TIME),
    Column("failed", Text),
    Column("failed_at", _TIME),
    _tenant(),
)
