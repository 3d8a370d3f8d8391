"""Rule sets: loading, versions, states, hits, faults and the starter pack."""

import subprocess
import sys
from pathlib import Path

import durable_rules_engine as core
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudguard.errors import BadRule
from fraudguard.features.registry import FEATURES
from fraudguard.metrics import RULES_FALLBACKS
from fraudguard.rules import gate, registry
from fraudguard.rules.expression import Field, walk
from fraudguard.rules.gate import slots_of
from fraudguard.rules.reference import holds
from fraudguard.rules.registry import RuleSet, fields_of, load_rules, rolled_out
from fraudguard.rules.values import read_values

WORDS = ("debit", "credit", "transfer", "card", "customer", "counterparty", "急用钱，转到安全账户", "收银行卡，跑分")
PACK = Path(__file__).parents[3] / "rules"
FIELDS = fields_of(PACK, FEATURES)


@pytest.fixture(scope="module")
def pack():
    """The starter pack, loaded through the gate."""
    rules = load_rules(PACK, FEATURES)
    yield rules
    rules.close()


def test_the_pack_passes_its_own_cases():
    """Every case of every shipped rule comes out as written."""
    outcomes = registry.test_directory(PACK, FEATURES)
    assert len(outcomes) > 70
    assert [str(outcome.problem) for outcome in outcomes if outcome.problem] == []


def test_eleven_transfers_and_urgent_money_block(pack):
    """The rule the project began with: eleven transfers and 急用钱 block, ten do not."""
    (hit, *_) = pack.evaluate({"transfers_1d": 11, "chat": "急用钱，先转到安全账户"})
    assert (hit.rule, hit.outcome, hit.reason) == ("urgent-money-burst", "block", "TRANSFERS_1D_AND_URGENT_MONEY")
    assert pack.evaluate({"transfers_1d": 10, "chat": "急用钱，先转到安全账户"}) == []


def test_a_set_is_rebuilt_from_its_sources(pack):
    """Stored sources give the same version and the same hits."""
    again = RuleSet.from_sources(dict(reversed(pack.sources.items())), FEATURES)
    assert again.version == pack.version
    assert again.evaluate({"transfers_1d": 11, "chat": "急用钱"}) == pack.evaluate(
        {"transfers_1d": 11, "chat": "急用钱"}
    )
    again.close()


def test_the_policy_file_is_no_rule_file(pack):
    """Only rule files are read from the directory."""
    assert (PACK / "policy.yaml").exists()
    assert "policy.yaml" not in pack.sources


def test_line_ends_do_not_change_the_version(tmp_path, rule_text, fields):
    """A checkout with CRLF or a byte-order mark is the same rule set; one changed letter is another."""
    versions = []
    for body in (rule_text(), "\ufeff" + rule_text().replace("\n", "\r\n"), rule_text(outcome="block")):
        (tmp_path / "a.yaml").write_bytes(body.encode())
        rules = load_rules(tmp_path, fields)
        versions.append(rules.version)
        rules.close()
    assert versions[0] == versions[1] != versions[2]


def test_only_live_and_shadow_rules_hit_and_the_strongest_comes_first(rule_text, fields):
    """Drafts and retired rules are silent; hits are ordered by outcome, then severity, then id."""
    made = [
        ("d", "draft", "block"),
        ("r", "retired", "block"),
        ("b", "live", "review"),
        ("a", "live", "review"),
        ("s", "shadow", "block"),
    ]
    sources = {f"{id}.yaml": rule_text(id=id, state=state, outcome=outcome) for id, state, outcome in made}
    rules = RuleSet.from_sources(sources, fields)
    assert [(hit.rule, hit.state) for hit in rules.evaluate({"transfers_1d": 11})] == [
        ("s", "shadow"),
        ("a", "live"),
        ("b", "live"),
    ]
    assert len(rules.rules) == 5
    rules.close()


def test_attributes_of_the_event_are_usable(rule_text, fields):
    """An attribute is compared by the type it came with."""
    text = rule_text(when='attributes.tier == "gold"', hit="attributes.tier: gold", no_hit="attributes.tier: 1")
    rules = RuleSet.from_sources({"a.yaml": text}, fields)
    assert rules.evaluate({"attributes.tier": "gold"})
    assert not rules.evaluate({"attributes.tier": True})
    rules.close()


def test_a_rule_set_without_active_rules_hits_nothing(rule_text, fields):
    """Only drafts: allowed, and silent."""
    rules = RuleSet.from_sources({"a.yaml": rule_text(state="draft")}, fields)
    assert rules.evaluate({"transfers_1d": 11}) == []
    rules.close()


def faulty_assert(handle, fact):
    """The core as it fails when too much is pending."""
    raise core.error("Could not assert fact, error code: 303")


@pytest.mark.parametrize(
    ("module", "name", "replacement"),
    [
        (core, "assert_fact", faulty_assert),
        (core, "assert_fact", lambda handle, fact: (2, 0)),
        (core, "start_action_for_state", lambda handle, state: None),
        (re2.Set, "Match", lambda self, text: []),
    ],
    ids=["error", "refused", "silent", "search out of memory"],
)
def test_the_reference_answers_when_the_core_faults(pack, monkeypatch, module, name, replacement):
    """An error, a refusal, a silent core and a search that gave up are noticed, counted and answered all the same."""
    inputs = {"transfers_1d": 11, "chat": "急用钱"}
    expected = pack.evaluate(inputs)
    before = RULES_FALLBACKS._value.get()
    with monkeypatch.context() as broken:
        broken.setattr(module, name, replacement)
        assert pack.evaluate(inputs) == expected
    assert RULES_FALLBACKS._value.get() == before + 1
    assert pack.evaluate(inputs) == expected
    assert RULES_FALLBACKS._value.get() == before + 1


def test_rules_on_which_the_core_is_wrong_do_not_pass_the_gate(rule_text, fields, monkeypatch):
    """A compiler that encodes a condition wrongly is caught by the comparison with the reference."""
    rules = gate.read_contents({"a.yaml": rule_text()}, fields).rules
    conditions = [rules[0].condition]
    slots = gate.slots_of(conditions, fields)
    trials = list(gate.probes(conditions, slots, gate.PROBES, seed=0))
    assert gate.compare(conditions, slots, trials) == ""
    monkeypatch.setitem(gate.compile_conditions.__globals__["_VERBS"], ">", "$gte")
    assert "differ from the reference" in gate.compare(conditions, slots, trials)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ended with -11"),
        ("while True: pass", "longer than"),
        ("print('wrong'); raise SystemExit(1)", "wrong"),
    ],
)
def test_a_crash_or_hang_of_the_trial_run_refuses_the_rules(
    tmp_path, rule_text, fields, monkeypatch, command, expected
):
    """Whatever happens to the throw-away process, this process lives and says why."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{command}"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(gate.sys, "executable", str(fake))
    monkeypatch.setattr(gate, "WALL_S_MAX", 1.0)
    with pytest.raises(BadRule, match=expected):
        RuleSet.from_sources({"a.yaml": rule_text()}, fields)


def test_cases_run_only_where_every_rule_reads_well(tmp_path, rule_text, fields):
    """A failing case is told as one; beside a rule that does not read, nothing is said to have passed."""
    (tmp_path / "a.yaml").write_text(rule_text(id="good", hit="transfers_1d: 1"))
    outcomes = registry.test_directory(tmp_path, fields)
    assert [outcome.problem is None for outcome in outcomes] == [False, True]
    (tmp_path / "b.yaml").write_text(rule_text(when="transfers_1d >"))
    with pytest.raises(BadRule, match=r"^b\.yaml:"):
        registry.test_directory(tmp_path, fields)


def test_rules_need_no_torch():
    """The rules room, its gate included, imports neither torch nor transformers."""
    code = "import sys, fraudguard.rules.registry; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_rollout_acts_for_a_stable_share_of_accounts_that_only_grows(rule_text, fields):
    """A quarter of the accounts at 25 percent, all of them still at 60; the others' hits are shadow hits."""
    live: list[set[str]] = []
    for percent in (25, 60, 100):
        text = rule_text().replace("reason:", f"rollout: {percent}\nreason:")
        rules = RuleSet.from_published({"a.yaml": text}, fields)
        states = {f"a-{n}": rules.evaluate({"transfers_1d": 11, "account_id": f"a-{n}"})[0].state for n in range(2000)}
        live.append({account for account, state in states.items() if state == "live"})
        assert set(states.values()) <= {"live", "shadow"}
        (hit,) = rules.evaluate({"transfers_1d": 11})
        assert hit.state == ("live" if percent == 100 else "shadow")
        rules.close()
    assert 400 < len(live[0]) < 600
    assert live[0] < live[1] < live[2]
    assert len(live[2]) == 2000


def test_different_rules_roll_out_to_different_accounts():
    """Nobody is the guinea pig of every rule."""
    accounts = [f"a-{n}" for n in range(1000)]
    first, second = ({a for a in accounts if rolled_out(rule, a, 50)} for rule in ("one-rule", "another"))
    assert 150 < len(first & second) < 350


def test_a_hit_tells_its_severity(pack):
    """What the rule's file says, for the policy to weigh."""
    (hit, *_) = pack.evaluate({"transfers_1d": 11, "chat": "急用钱"})
    assert hit.severity == "critical"


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_type_of_an_event_only_says_which_rules_need_not_be_asked(pack, data):
    """Whatever the inputs, a set asked by event type hits as the reference does on every active rule."""
    names = sorted({node.name for rule in pack.active for node in walk(rule.condition) if isinstance(node, Field)})
    kinds = {feature.name: feature.type for feature in FIELDS}
    values = {"number": st.floats(0, 100_000), "text": st.sampled_from(WORDS), "boolean": st.booleans()}
    given_names = data.draw(st.sets(st.sampled_from(names)))
    inputs = {name: data.draw(st.none() | values[kinds.get(name, "text")]) for name in sorted(given_names)}
    inputs["event_type"] = data.draw(st.sampled_from(("transaction", "message", "label", None)))
    read = read_values(slots_of([rule.condition for rule in pack.active], FIELDS), inputs)
    expected = [rule.id for rule in pack.active if holds(rule.condition, read)]
    assert [hit.rule for hit in pack.evaluate(inputs)] == expected
