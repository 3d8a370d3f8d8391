"""The name of every metric, in one place, each with what it counts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
# Decisions whose evidence was to be made: made, or why not: dropped (too many waited), failed.
EVIDENCE = Counter("fraudguard_evidence", "Decisions by what became of their evidence.", ["fate"])
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

# What `fraudguard drift --textfile` writes: a registry of its own, which no process serves. By week of the event time,
# like 2026-W43; the index, of the newest whole week alone.
DRIFT = CollectorRegistry()
# Event time of the newest decision that was counted.
DRIFT_NEWEST = Gauge(
    "fraudguard_drift_newest_event_seconds", "Event time of the newest decision, Unix time.", registry=DRIFT
)
# Population stability index of an input or score in the newest whole week against the reference.
DRIFT_PSI = Gauge(
    "fraudguard_drift_psi", "Population stability index, newest whole week.", ["event_type", "variable"], registry=DRIFT
)
# The index that values which did not move may have; one from 0.1 on means something above it.
DRIFT_PSI_USUAL = Gauge(
    "fraudguard_drift_psi_usual", "The index without a move.", ["event_type", "variable"], registry=DRIFT
)
# Decisions, by outcome.
DRIFT_DECISIONS = Gauge(
    "fraudguard_drift_decisions", "Decisions of a week.", ["week", "event_type", "outcome"], registry=DRIFT
)
# Share of decisions that were review or block.
DRIFT_STOPPED_SHARE = Gauge(
    "fraudguard_drift_stopped_share", "Share reviewed or blocked.", ["week", "event_type"], registry=DRIFT
)
# Share of decisions made without the model.
DRIFT_DEGRADED_SHARE = Gauge(
    "fraudguard_drift_degraded_share", "Share decided without the model.", ["week", "event_type"], registry=DRIFT
)
# Alerts by what became of their case; not_yet: nobody has disposed of it.
DRIFT_ALERTS = Gauge(
    "fraudguard_drift_alerts", "Alerts by disposition.", ["week", "event_type", "disposition"], registry=DRIFT
)
# confirmed_fraud / (confirmed_fraud + false_positive); absent while both are 0.
DRIFT_PRECISION = Gauge(
    "fraudguard_drift_precision", "Precision of the disposed alerts.", ["week", "event_type"], registry=DRIFT
)
# Decisions whose newest label says fraud, and those of them that were review or block; absent while labels may come.
DRIFT_FRAUDS = Gauge("fraudguard_drift_frauds", "Decisions labelled fraud.", ["week", "event_type"], registry=DRIFT)
DRIFT_FRAUDS_STOPPED = Gauge(
    "fraudguard_drift_frauds_stopped",
    "Decisions labelled fraud that were reviewed or blocked.",
    ["week", "event_type"],
    registry=DRIFT,
)
