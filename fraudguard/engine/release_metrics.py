"""The measures that a release's folder brings: see fraudguard/measures.py."""

from fraudguard.engine.release import Release
from fraudguard.errors import BadModel
from fraudguard.measures import Metrics, parse_metrics


def read_metrics(release: Release) -> Metrics | None:
    """What the release brings; None where it brings none. Raises BadModel if they are another model's."""
    if release.metrics is None:
        return None
    metrics = parse_metrics(release.metrics.read_bytes(), release.metrics)
    name = f"{release.name}@{release.version}"
    if metrics.model.partition("+")[0] != name:
        raise BadModel(f"these are the measures of {metrics.model}, not of {name}", path=str(release.metrics))
    return metrics
