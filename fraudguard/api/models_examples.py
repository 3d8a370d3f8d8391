"""Examples of models' quality and promotion, in the OpenAPI document; the tests take them from there and send them."""

from typing import Any

_PRECISION: dict[str, Any] = {"part": 61, "whole": 80, "value": 0.7625, "low": 0.6588, "high": 0.8424}
_NONE: dict[str, Any] = {"part": 0, "whole": 0, "value": None, "low": None, "high": None}
QUALITY: dict[str, Any] = {
    "scoring": "starter@0.3.0+int8",
    "weeks": [
        {
            "week": "2026-W47",
            "alerts": 94,
            "precision": _PRECISION,
            "sampled": 1680,
            "stopped": {"part": 13, "whole": 1680, "value": 0.0077, "low": 0.0045, "high": 0.0132},
            "degraded": {"part": 0, "whole": 1680, "value": 0.0, "low": 0.0, "high": 0.0023},
            "mean_risk": {"transaction": 0.021, "message": 0.034},
            "moved": {"transaction": {"psi": 0.03, "usual": 0.05, "level": "steady"}},
            "reference": False,
        }
    ],
    "calibration": [{"low": 0.9, "high": 1.0, "risk": 0.963, "frauds": _PRECISION}],
    "typologies": [{"typology": "scam", "alerts": 71, "precision": _PRECISION}],
    "challenger": {"sampled": 1680, "moved": 0.012, "differing": 9, "frauds": _PRECISION, "false_alarms": _NONE},
}
PROMOTION: dict[str, Any] = {"model": "starter@0.4.0", "note": "labels of November, two weeks in shadow"}
PROMOTED: dict[str, Any] = {"champion": "starter@0.4.0", "restart": False}
ROLLBACK: dict[str, Any] = {"note": "too many alerts since Monday"}
ROLLED_BACK: dict[str, Any] = {"champion": "starter@0.3.0", "restart": False}
