"""Examples of operations, in the OpenAPI document; the tests take them from there and send them."""

from typing import Any

_LATENCY: dict[str, Any] = {"sampled": 640, "p50": 14.0, "p95": 38.5, "p99": 71.2, "over": 0.0, "degraded": 0.0}
OPERATIONS: dict[str, Any] = {
    "lately": {
        "first": "2026-11-21T09:31:00Z",
        "before": "2026-11-21T10:00:10Z",
        "budget_ms": 2000,
        "all": _LATENCY,
        "by_type": {"transaction": _LATENCY, "message": _LATENCY},
        "minutes": [{"at": "2026-11-21T10:00:00Z", "latency": _LATENCY}],
        "reasons": {},
    },
    "kafka": {
        "state": "Stable",
        "lag": 3,
        "workers": [
            {
                "member": "faust-0.15.3-83f33dac-58f5-4bda-8f2b-3ca9b2d3244a",
                "client": "faust-0.15.3",
                "host": "10.0.0.7",
                "partitions": 24,
            }
        ],
        "shares": [
            {"topic": "transactions", "partition": 0, "end": 90_217, "committed": 90_214, "lag": 3, "worker": 0}
        ],
    },
    "kafka_problem": None,
}
REPLAY: dict[str, Any] = {
    "which": "0/0",
    "actor": "operator",
    "at": "2026-11-21T10:05:00Z",
    "runs": True,
    "sent": None,
    "before": None,
    "refused": None,
    "problem": None,
}
WISH: dict[str, Any] = {"ids": ["0/0"]}
LETTERS: dict[str, Any] = {
    "letters": [
        {
            "id": "0/0",
            "code": "bad_json",
            "reason": "the record is not JSON",
            "path": "",
            "hint": "send one JSON object",
            "source": "messages/0/118",
            "key": "a-1",
            "source_time": "2026-11-21T10:01:00Z",
            "time": "2026-11-21T10:01:00Z",
            "replays": 0,
            "replayed": False,
            "size": 31,
            "preview": '{"text": "call <PHONE> now"',
        }
    ],
    "counts": {"bad_json": 1},
    "replay": None,
}
