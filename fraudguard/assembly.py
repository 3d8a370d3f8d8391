"""Builds a Pipeline from Settings: the one place where the rooms meet their configuration.

torch or onnxruntime is imported only when a model needs it, so that processes without one start fast.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.repository import connect
from fraudguard.engine.batcher import Batcher, BlockingEngine
from fraudguard.engine.guard import GuardedEngine
from fraudguard.engine.release import open_release
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadPolicy, BadRule
from fraudguard.features.money import Rates, load_rates
from fraudguard.features.registry import features_in
from fraudguard.pipeline import Pipeline
from fraudguard.rulebook import Pack, open_publishing, read_pack

if TYPE_CHECKING:
    from fraudguard.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Parts:
    """What is read from files and may be refused with a message for a person, before anything is opened.

    pack: or what is wrong with the rule files, which only matters where no rules are in force yet.
    """

    pack: Pack | BadRule | BadPolicy
    scorer: GuardedEngine | None
    counter: LineTokenizer
    rates: Rates

    def close(self) -> None:
        """Free the compiled rules and the engine's thread."""
        if isinstance(self.pack, Pack):
            self.pack.close()
        if self.scorer:
            self.scorer.close()


def load_parts(settings: Settings) -> Parts:
    """Rules, policy, tokenizer and (unless settings.model is "off") the engine.

    Raises BadModel, BadSettings.
    """
    pack: Pack | BadRule | BadPolicy
    try:
        pack = read_pack(settings.rules_dir, settings.policy_path, features_in(settings.base_currency))
    except (BadRule, BadPolicy) as error:
        pack = error
    # With the model off the timeline is still cut in the starter's tokens, so that it can be switched on any time.
    counter = open_tokenizer(open_release("starter" if settings.model == "off" else settings.model).base)
    return Parts(pack, load_engine(settings), counter, load_rates(settings.base_currency, settings.rates_path))


def load_engine(settings: Settings) -> GuardedEngine | None:
    """The configured model behind its queue and its guard; None when settings.model is "off".

    Raises BadModel, BadSettings.
    """
    if settings.model == "off":
        return None
    return GuardedEngine(
        batcher_of(settings, open_engine(settings)),
        timeout_s=settings.engine_timeout_ms / 1000,
        failures_max=settings.engine_failures_max,
        retry_s=settings.engine_retry_ms / 1000,
    )


def open_engine(settings: Settings) -> BlockingEngine:
    """The configured model: on this machine, or on the server that settings name. Raises BadModel, BadSettings."""
    if settings.engine_url:
        return _connect(settings, str(settings.engine_url))
    if open_release(settings.model).graph is None:
        return local_engine(settings)
    from fraudguard.engine.onnx_engine import OnnxEngine  # imports onnxruntime

    return OnnxEngine.load(settings.model, settings.engine_threads, settings.engine_cache_mib << 20)


def local_engine(settings: Settings) -> "Engine":
    """The configured model on torch. Raises BadModel, BadSettings."""
    from fraudguard.engine.engine import Engine  # imports torch, transformers and peft

    return Engine.load(
        settings.model,
        settings.precision,
        settings.engine_threads,
        cache_bytes=settings.engine_cache_mib << 20,
        device=settings.device,
        host_cache_bytes=settings.engine_host_cache_mib << 20,
        graphs=settings.engine_graphs,
    )


def batcher_of(settings: Settings, engine: BlockingEngine) -> Batcher:
    """The engine's queue, as settings say."""
    return Batcher(engine, pass_s=settings.engine_pass_ms / 1000, queue_max=settings.engine_queue_max)


def _connect(settings: Settings, url: str) -> BlockingEngine:
    from fraudguard.engine.remote import RemoteEngine  # imports torch

    return RemoteEngine.connect(
        settings.model,
        url,
        timeout_s=settings.engine_timeout_ms / 1000,
        served_name=settings.engine_served_name,
        key=settings.engine_key,
        threads=settings.engine_threads,
    )


@asynccontextmanager
async def open_pipeline(settings: Settings, parts: Parts, clock: Clock) -> AsyncIterator[Pipeline]:
    """A pipeline on an open database; the rule files are put in force if no rules are yet.

    Raises StoreUnavailable; BadRule and BadPolicy for rule files that would have to be put in force.
    """
    async with connect(settings.database_url.get_secret_value()) as repository:
        await open_publishing(settings, repository).start(parts.pack, clock.now())
        yield Pipeline(
            settings=settings,
            repository=repository,
            fields=features_in(settings.base_currency),
            scorer=parts.scorer,
            counter=parts.counter,
            rates=parts.rates,
            clock=clock,
        )
