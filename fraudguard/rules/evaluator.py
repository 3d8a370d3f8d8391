"""Compiled conditions in the durable_rules core: one immutable set of handles, one fact at a time.

The only module that touches the C core. The core keeps the GIL, so a lock a set costs nothing and scaling is by
processes. An answer is believed only if the sentinel of every shard fired too; anything else is an EngineFault.
"""

import threading
import weakref
from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final

import durable_rules_engine as core

from fraudguard.rules.compiler import SENTINEL, Kind, Program, encode_number, encode_text
from fraudguard.rules.predicates import Predicates, SearchFault
from fraudguard.rules.values import Value, Values

_FACT: Final = f'{{"id":"e","sid":"0","{SENTINEL}":0.5'  # one id and one sid for ever: the core never frees others
_RETRACT: Final = '{"id":"e","sid":"0"}'
_TYPES: Final[dict[Kind, type]] = {"n": float, "s": str, "b": bool}
_Shard = tuple[int, Callable[[list[str]], Any], dict[str, int]]  # handle, its part of the sources, its conditions


class EngineFault(Exception):
    """The core's answer cannot be trusted; ask the reference evaluator."""


class Evaluator:
    """Conditions loaded into the core until `close`, or until nobody refers to this any more."""

    def __init__(self, program: Program) -> None:
        """Load the shards; raises EngineFault when the core refuses one."""
        self._lock = threading.Lock()
        self._natives = [(name, _TYPES[kind], f',"{key}":') for (name, kind), key in program.natives.items()]
        self._predicates = Predicates(list(program.derived))
        self._derived = [f',"{key}":true' for key in program.derived.values()]
        at = {key: number for number, key in enumerate((*program.natives.values(), *program.derived.values()))}
        self._shards: list[_Shard] = []
        # Whoever still evaluates holds a reference, so an old set is freed after its last use and never before.
        self.close = weakref.finalize(self, _free, self._shards, self._lock)
        self.close.atexit = False
        for shard in program.shards:
            try:
                handle = core.create_ruleset("rules", shard.source)
                _fire(handle, _FACT + "}")  # also initialises the state, without which deleting it would crash
            except core.error as error:
                raise EngineFault(f"the rules core refused a shard: {error}") from error
            self._shards.append((handle, itemgetter(*(at[key] for key in shard.keys)), shard.conditions))

    def evaluate(self, values: Values) -> set[int]:
        """Indexes of the conditions that hold; raises EngineFault, and RuntimeError once closed."""
        sources = self._sources(values)
        hits: set[int] = set()
        with self._lock:
            if not self.close.alive:
                raise RuntimeError("these rules are closed")
            for handle, part, conditions in self._shards:
                fact = _FACT + "".join(part(sources)) + "}"
                try:
                    names = _fire(handle, fact)
                except core.error as error:
                    raise EngineFault(str(error)) from error
                hits.update(conditions[name] for name in names if name != SENTINEL)
        return hits

    def _sources(self, values: Values) -> list[str]:
        """What each key of the program adds to a fact; nothing where its value is missing or its condition false."""
        get = values.get
        sources = [
            prefix + _encode(value) if (value := get(name)) is not None and value.__class__ is kind else ""
            for name, kind, prefix in self._natives
        ]
        try:
            holding = self._predicates.evaluate(values)
        except SearchFault as error:
            raise EngineFault(f"text search gave up on {error}") from error
        sources += [source if held else "" for source, held in zip(self._derived, holding, strict=True)]
        return sources


def _encode(value: Value) -> str:
    if value.__class__ is float:
        text = repr(value)
        return encode_number(value) if "e" in text else text
    if value.__class__ is str:
        return encode_text(value)
    return "true" if value else "false"


def _fire(handle: int, fact: str) -> list[str]:
    """Names of the core's rules that match the fact, the sentinel's among them."""
    names = []
    try:
        code, state = core.assert_fact(handle, fact)
        if code != 0:
            raise EngineFault(f"the rules core answered {code} to a fact")
        started = core.start_action_for_state(handle, state)
        match = started and started[1]
        while match:
            names.append(match[2 : match.index('"', 2)])
            match = core.complete_and_start_action(handle, state)
    finally:
        core.retract_fact(handle, _RETRACT)
    if SENTINEL not in names:
        raise EngineFault("the rules core gave an evaluation up")
    return names


def _free(shards: list[_Shard], lock: threading.Lock) -> None:
    with lock:
        for handle, _, _ in shards:
            core.delete_state(handle, "0")
            core.delete_ruleset(handle)
        shards.clear()
