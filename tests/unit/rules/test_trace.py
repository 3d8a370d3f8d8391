"""Traces of conditions: never another truth than the reference's, spelling that reads back, changes that turn."""

from dataclasses import dataclass

import pytest
from hypothesis import assume, given, settings
from unit.rules.test_twins import SLOTS, conditions, events

from fraudguard.rules import expression as ex
from fraudguard.rules.expression import parse
from fraudguard.rules.reference import holds
from fraudguard.rules.trace import changes, names_of, spell, trace
from fraudguard.rules.values import read_values

TYPES = {"n": "number", "m": "number", "t": "text", "b": "boolean"}


def combined(part):
    """What a part's truth must be by its parts' alone."""
    truths = [below.holds for below in part.parts]
    return {"all": all(truths), "any": any(truths), "not": not any(truths), "test": part.holds}[part.kind]


def parts_of(part):
    """The part and everything below it."""
    yield part
    for below in part.parts:
        yield from parts_of(below)


@settings(max_examples=300, deadline=None)
@given(conditions, events)
def test_a_trace_agrees_with_the_reference(condition, event):
    """Every part's truth is the reference evaluator's, and composes; the tests below read what the condition reads."""
    values = read_values(SLOTS, event)
    whole = trace(condition, values)
    assert whole.holds is holds(condition, values)
    assert all(part.holds is combined(part) for part in parts_of(whole))
    assert {name for part in parts_of(whole) for name, _ in part.values} == set(names_of(condition))
    assert not any(part.found for part in parts_of(whole) if not part.holds)


@settings(max_examples=300, deadline=None)
@given(conditions)
def test_a_spelled_condition_reads_back(condition):
    """Parsing the words of a tree gives the tree."""
    assume(not any("\n" in node.value for node in ex.walk(condition) if isinstance(node, ex.Text)))
    assume(len(spell(condition)) <= ex.LENGTH_MAX)
    assert parse(spell(condition)) == condition


@settings(max_examples=100, deadline=None)
@given(conditions, events)
def test_a_change_turns_the_condition(condition, event):
    """With the one value changed as told, the condition's truth is the other one."""
    values = read_values(SLOTS, event)
    types = {name: kind for name, kind in SLOTS if name in names_of(condition)}
    for change in changes(condition, values, types):
        turned = {name: value for name, value in values.items() if name != change.name}
        if change.to is not None:
            turned[change.name] = change.to
        assert holds(condition, turned) is not holds(condition, values)


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("n > 10", {"n": 14.0}, {"n at most 10": 10.0}),
        ("n > 10", {"n": 8.0}, {"n above 10": 10.000000000000002}),
        ("n >= 10", {"n": 14.0}, {"n below 10": 9.999999999999998}),
        ("n >= 10", {"n": 8.0}, {"n at least 10": 10.0}),
        ("n >= 10", {}, {"n at least 10": 10.0}),
        ("n == 5", {"n": 8.0}, {"n is 5": 5.0}),
        ("n between 5 and 10", {"n": 9.0}, {"n above 10": 10.000000000000002}),
        ("n > 3 * m", {"n": 4000.0, "m": 100.0}, {"n at most 300": 300.0}),
        ("n > 0.5 and b", {"n": 0.75, "b": True}, {"n at most 0.5": 0.5, "b is false": False}),
        ("n > 10 or b", {"n": 14.0, "b": True}, {}),
        ("not b", {}, {"b is true": True}),
        ("b", {}, {"b is true": True}),
        ('t mentions ["abc", "xyz"]', {"t": "one xyz"}, {'t without "xyz"': ""}),
        ('t mentions ["abc"]', {"t": "one"}, {'t with "abc"': "one\nabc"}),
        ('t == "debit"', {"t": "debit"}, {'t other than "debit"': ""}),
        ('t == "debit"', {"t": "credit"}, {'t is "debit"': "debit"}),
        ('t not in ["CN"]', {"t": "RU"}, {'t is "CN"': "CN"}),
        ("t is missing", {}, {"t is known": "x"}),
        ("t is known", {"t": "here"}, {"t is missing": None}),
        ("n is missing", {}, {"n is known, like 0": 0.0}),
    ],
)
def test_the_smallest_change(source, values, expected):
    """The change in words, and a value that does it, for typical conditions."""
    condition = parse(source)
    found = changes(condition, values, {name: TYPES[name] for name in names_of(condition)})
    shown = {change.text: change.to for change in found}
    assert expected.items() <= shown.items()
    assert expected or not shown


def test_the_nearest_change_comes_first():
    """Numbers by how far they must move, relative to themselves."""
    condition = parse("n > 10 and m > 10 and b")
    found = changes(condition, {"n": 100.0, "m": 11.0, "b": True}, {name: TYPES[name] for name in "nmb"})
    assert [change.name for change in found] == ["m", "n", "b"]


def test_the_phrase_found_and_where():
    """A phrase hidden by hyphens is found in its own line, with what stands around it."""
    chat = "你好\n妈，我在医院，现在急-用-钱，你先别告诉爸爸，等我回来再说给你听好不好呀，快转给我吧\n好"
    part = trace(parse('t mentions ["别的", "急用钱"]'), {"t": chat})
    (phrase,) = part.found
    assert (phrase.field, phrase.phrase) == ("t", "急用钱")
    assert phrase.excerpt == "妈我在医院现在急用钱你先别告诉爸爸等我回来再说给你听好不好呀..."
    assert part.values == (("t", chat),)


def test_a_word_begins_where_it_is_told():
    """The place shown is the one that counts, not the letters inside another word."""
    part = trace(parse('t mentions "pin"'), {"t": "i was shopping for a long while today, then they asked my pin code"})
    assert part.found[0].excerpt == "... then they asked my pin code"


def test_a_pattern_shows_what_it_matched():
    """For a regular expression the text that it found."""
    part = trace(parse('t matches "code is \\\\d+"'), {"t": "Your Code is 123, keep it"})
    assert [(p.phrase, p.excerpt) for p in part.found] == [("code is 123", "your code is 123, keep it")]


def test_lists_money_and_times_are_spelled_as_written():
    """And a list is read by its own name."""
    source = "ip not in @bad_ips and amount >= 50_000 USD and local_time >= 22:30"
    condition = parse(source)
    assert spell(parse("ip not in @bad_ips and n >= 22:30")) == "ip not in @bad_ips and n >= 22:30"
    assert "50_000 USD" in spell(condition)
    part = trace(parse("ip in @bad_ips"), {"ip": "10.0.0.1", "ip in @bad_ips": True})
    assert (part.holds, part.values) == (True, (("ip", "10.0.0.1"), ("ip in @bad_ips", True)))
    (change,) = changes(parse("ip in @bad_ips"), {"ip in @bad_ips": True}, {"ip": "text", "ip in @bad_ips": "boolean"})
    assert change.text == "ip in @bad_ips is false"


def test_a_node_without_words_is_shown_by_its_fields():
    """A kind of node that trace does not know still reads as something."""

    @dataclass(frozen=True, slots=True)
    class Looked(ex.Node):
        value: ex.Node
        places: tuple[str, ...]

    assert spell(Looked(ex.Field("ip"), ("a", "b"))) == "looked(ip, [a, b])"
