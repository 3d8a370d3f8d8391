"""The name of every metric, in one place, each with what it counts."""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Events taken from a topic, by type (transaction, message, label).
EVENTS = Counter("fraudguard_events", "Events taken.", ["type"])
# Events that found their earlier decision and published it again.
DUPLICATES = Counter("fraudguard_duplicate_events", "Events that had been decided before.")
# Decisions committed, by outcome and whether they were degraded.
DECISIONS = Counter("fraudguard_decisions", "Decisions committed.", ["outcome", "degraded"])
# Events sent to the dead-letter topic, by reason code.
DEAD_LETTERS = Counter("fraudguard_dead_letters", "Events sent to the dead-letter topic.", ["reason"])
# Wall time of one stage of a micro-batch: load, features, engine, rules, commit, publish.
STAGE_SECONDS = Histogram("fraudguard_stage_seconds", "Wall time of a stage of one batch.", ["stage"], buckets=SECONDS)
# Received to decided, per decision.
LATENCY_SECONDS = Histogram("fraudguard_latency_seconds", "Received to decided.", buckets=SECONDS)
# Events in one micro-batch.
BATCH_EVENTS = Histogram("fraudguard_batch_events", "Events in a batch.", buckets=(1, 4, 16, 64, 256, 1024))
# Batches computed again because another worker had written an account first.
CONFLICTS = Counter("fraudguard_state_conflicts", "Batches retried after a state conflict.")
# Events decided without the model, by reason code.
DEGRADED = Counter("fraudguard_degraded_events", "Events decided without the model.", ["reason"])
# Evaluations answered by the reference evaluator because durable_rules faulted.
RULES_FALLBACKS = Counter("fraudguard_rules_fallbacks", "Evaluations the reference evaluator answered.")
# 1 for the model that each role (champion, challenger) scores with here, by its name@version+precision.
MODEL = Gauge("fraudguard_model", "The models that score here.", ["role", "model"])
# Models that the registry or the settings name and this worker could not take over, by role, once an attempt.
MODEL_REFUSALS = Counter("fraudguard_model_refusals", "Models that could not be taken over.", ["role"])
# Fresh decisions while there is a challenger: scored, or why not: degraded (no live score), late (no time left),
# busy (it still read the batch before), failed.
SHADOW = Counter("fraudguard_shadow_decisions", "Decisions by what the challenger did.", ["fate"])
# Account states held in memory.
ACCOUNTS_CACHED = Gauge("fraudguard_accounts_cached", "Account states in memory.")
# Wall time of one request of the API, by method, route (as declared) and status.
API_SECONDS = Histogram(
    "fraudguard_api_seconds", "Wall time of a request.", ["method", "route", "status"], buckets=SECONDS
)
# Requests of this API process that wait for their decision.
SCREENS_WAITING = Gauge("fraudguard_screens_waiting", "Requests waiting for a decision.")
# Labels written by analysts that Kafka has not acknowledged yet.
OUTBOX_PENDING = Gauge("fraudguard_outbox_pending", "Label events waiting for Kafka.")
