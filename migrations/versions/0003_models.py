"""The model registry: releases of models, who put which in what role, and what challengers would have said."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# digest: SHA-256 of the release's SHA256SUMS, which names every file in it. graph: '' for a release that torch loads,
# else an ONNX release's precision; all that has one name in decisions is one model. tokenizer: its id. location: where
# workers find the folder, the only thing that may change. metrics: its metrics.json, null where it brings none.
MODELS = """
CREATE TABLE models (
    digest    text PRIMARY KEY CHECK (digest ~ '^[0-9a-f]{64}$'),
    name      text NOT NULL,
    version   text NOT NULL,
    graph     text NOT NULL,
    tokenizer text NOT NULL,
    location  text NOT NULL,
    metrics   json,
    added_at  timestamptz NOT NULL,
    added_by  text NOT NULL,
    UNIQUE (name, version, graph)
);
"""

# One row a step, with what stands after it: the newest is the head that workers follow. champion null: the model that
# each worker's settings name. digest: whom the step was about, null for that same model.
STEPS = """
CREATE TABLE model_steps (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action     text NOT NULL CHECK (action IN ('shadow', 'retire', 'promote', 'rollback')),
    digest     text REFERENCES models,
    champion   text REFERENCES models,
    challenger text REFERENCES models CHECK (challenger <> champion),
    forced     boolean NOT NULL,
    actor      text NOT NULL,
    note       text NOT NULL,
    at         timestamptz NOT NULL
);
"""

# No foreign keys: these rows ride in the transaction of live decisions. outcome: what the policy would have given.
SHADOW_SCORES = """
CREATE TABLE shadow_scores (
    digest      text NOT NULL,
    decision_id text NOT NULL,
    event_time  timestamptz NOT NULL,
    model       text NOT NULL,
    risk        double precision NOT NULL,
    typology    text NOT NULL,
    outcome     text NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (digest, decision_id)
);
"""


def upgrade() -> None:
    """Create everything; additive, so it stops rather than waits when something holds a lock."""
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("SET LOCAL statement_timeout = '60s'")
    for script in (MODELS, STEPS, SHADOW_SCORES):
        op.execute(script)
    op.execute(
        "CREATE TRIGGER model_steps_append_only BEFORE UPDATE OR DELETE ON model_steps"
        " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER model_steps_no_truncate BEFORE TRUNCATE ON model_steps"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
