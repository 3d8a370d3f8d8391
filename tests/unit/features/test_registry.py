"""The registry says what the state gives, and docs/features.md says what the registry does."""

import json
from dataclasses import replace
from pathlib import Path

from views import NOTHING_SHARED

from fraudguard.domain import Feature
from fraudguard.features.registry import FEATURES, MODEL_FEATURES, features_in, render_markdown
from fraudguard.rules.registry import fields_of

ROOT = Path(__file__).parents[3]
TYPES = {"number": (int, float), "text": (str,), "boolean": (bool,)}


def test_names_are_unique_and_everything_is_said():
    """No two features share a name, and each has a meaning."""
    assert len({feature.name for feature in FEATURES}) == len(FEATURES)
    assert all(feature.meaning for feature in FEATURES)


def test_model_features_are_numbers_or_booleans():
    """The head reads no text, no id and no score of its own."""
    declared = {feature.name: feature for feature in FEATURES}
    assert 40 <= len(MODEL_FEATURES) <= 80
    assert all(declared[name].type in ("number", "boolean") for name in MODEL_FEATURES)
    assert all(declared[name].group not in ("conversation", "score") for name in MODEL_FEATURES)


def test_model_features_are_those_of_the_shipped_head():
    """New features never move the inputs that the starter was trained on."""
    head = json.loads((ROOT / "fraudguard" / "engine" / "starter" / "head" / "head.json").read_text(encoding="utf-8"))
    assert [feature["name"] for feature in head["features"]] == [*MODEL_FEATURES, "lexicon"]


def test_amounts_in_base_are_in_its_currency():
    """With a base currency its code is the unit, and nothing else differs."""
    for feature, named in zip(FEATURES, features_in("EUR"), strict=True):
        assert named.unit == ("EUR" if feature.unit == "base currency" else feature.unit)
        assert replace(named, unit=feature.unit) == feature


def test_declared_windows_stand_beside_the_built_ins():
    """A rule set's windows are a group of the document, with their own meaning."""
    window = Feature("card_declines_1h", "number", "count", "1h", "small card payments with this device", "declared")
    text = render_markdown([window])
    assert "| `card_declines_1h` | number | count | 1h |  | small card payments with this device |" in text
    assert text.count("## declared") == render_markdown().count("## declared") == 1


def test_document_is_current():
    """docs/features.md has the built-ins and the shipped windows; write it anew by `fraudguard features --markdown`."""
    declared = [feature for feature in fields_of(ROOT / "rules", FEATURES) if feature.group == "declared"]
    assert len(declared) > 5
    assert (ROOT / "docs" / "features.md").read_text(encoding="utf-8") == render_markdown(declared)


def test_snapshot_holds_exactly_the_declared_features(account, payment, message):
    """Every event gives every declared feature, of the declared type or missing, and nothing else."""
    declared = {f.name: f.type for f in FEATURES if f.group not in ("conversation", "score")}
    state = account()
    for event in (
        payment(0, counterparty_id="c", merchant_id="m", device_id="d", country="CN", ip="203.0.113.5", memo="x"),
        message(1, language="zh"),
        payment(2, counterparty_id="c", merchant_id="m", device_id="d", country="CN"),
        payment(3),
        payment(4, direction="credit", currency="XTS"),
        message(-9999),
    ):
        features = state.take(event, *NOTHING_SHARED).features
        assert features.keys() == declared.keys()
        for name, value in features.items():
            assert value is None or type(value) in TYPES[declared[name]], name


def test_attributes_are_features(account, payment):
    """An event's attributes stand under attributes.NAME."""
    features = account().take(payment(attributes={"tier": "gold", "score": 3}), *NOTHING_SHARED).features
    assert features["attributes.tier"] == "gold"
    assert features["attributes.score"] == 3
