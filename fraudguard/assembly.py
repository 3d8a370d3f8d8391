"""Builds a Pipeline from Settings: the one place where the rooms meet their configuration.

torch or onnxruntime is imported only when a model needs it, so that processes without one start fast.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.models import Model
from fraudguard.decisions.repository import Repository, connect
from fraudguard.engine.batcher import Batcher, BlockingEngine
from fraudguard.engine.guard import GuardedEngine
from fraudguard.engine.release import SUMS, open_release, verify
from fraudguard.engine.tokenizer import LineTokenizer, open_tokenizer
from fraudguard.errors import BadModel, BadPolicy, BadRule, BadSettings, NotFound
from fraudguard.features.money import Rates, load_rates
from fraudguard.features.registry import features_in
from fraudguard.pipeline import Pipeline
from fraudguard.rulebook import Pack, open_publishing, read_pack
from fraudguard.serving import Serving

if TYPE_CHECKING:
    from fraudguard.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Parts:
    """What is read from files and may be refused with a message for a person, before anything is opened.

    pack: or what is wrong with the rule files, which only matters where no rules are in force yet. model: the
    registry's that the scorer was opened with; None: the configured one.
    """

    pack: Pack | BadRule | BadPolicy
    scorer: GuardedEngine | None
    model: Model | None
    counter: LineTokenizer
    rates: Rates

    def close(self) -> None:
        """Free the compiled rules and the engine's thread."""
        if isinstance(self.pack, Pack):
            self.pack.close()
        if self.scorer:
            self.scorer.close()


def load_parts(settings: Settings, champion: Model | None = None) -> Parts:
    """Rules, policy, tokenizer and (unless settings.model is "off") the engine: the champion's, or the configured one.

    Raises BadModel, BadSettings.
    """
    pack: Pack | BadRule | BadPolicy
    try:
        pack = read_pack(settings.rules_dir, settings.policy_path, features_in(settings.base_currency))
    except (BadRule, BadPolicy) as error:
        pack = error
    # With the model off the timeline is still cut in the starter's tokens, so that it can be switched on any time.
    source = "starter" if settings.model == "off" else champion.location if champion else settings.model
    counter = open_tokenizer(open_release(source).base)
    scorer = load_engine(settings, champion)
    return Parts(pack, scorer, champion, counter, load_rates(settings.base_currency, settings.rates_path))


async def registered_champion(settings: Settings) -> Model | None:
    """The model that the registry names; None where it names none or settings.model is "off".

    Raises StoreUnavailable, and BadSettings for a database that was not migrated.
    """
    if settings.model == "off":
        return None
    async with connect(settings.database_url.get_secret_value()) as repository:
        head = await repository.models.head()
        return head.champion if head else None


def load_engine(settings: Settings, model: Model | None = None) -> GuardedEngine | None:
    """A registered or the configured model behind its queue and its guard; None when settings.model is "off".

    Raises BadModel, BadSettings.
    """
    if settings.model == "off":
        return None
    return GuardedEngine(
        batcher_of(settings, open_model(settings, model)),
        timeout_s=settings.engine_timeout_ms / 1000,
        failures_max=settings.engine_failures_max,
        retry_s=settings.engine_retry_ms / 1000,
    )


def open_model(settings: Settings, model: Model | None) -> BlockingEngine:
    """A registered model, once its folder is seen to hold what was registered; None: the configured one.

    Raises BadModel, BadSettings.
    """
    if model is None:
        return open_engine(settings)
    if settings.engine_url and settings.engine_served_name:
        raise BadSettings(
            f"the server's model has a fixed name, so {model.id} cannot be asked for",
            path="FRAUDGUARD_ENGINE_SERVED_NAME",
            hint="unset it, and serve each release as name@version",
        )
    folder = Path(model.location)
    digest = verify(folder)
    if digest != model.digest:
        reason = f"holds a release of digest {digest[:12]}, not {model.id} of {model.digest[:12]}"
        raise BadModel(reason, path=str(folder), hint="copy the release there that was registered")
    return open_engine(settings.model_copy(update={"model": model.location}))


async def open_scorer_of(settings: Settings, repository: Repository, scored_by: str) -> GuardedEngine | None:
    """The model that gave a score (Score.model), in its precision: a registered one, or the configured one.

    None when settings.model is "off". Raises BadModel if it is neither.
    """
    name, _, precision = scored_by.partition("+")
    name = name.partition("/")[0]  # a tenant's
    graph = precision.removeprefix("onnx-") if precision.startswith("onnx-") else ""
    try:
        model = await repository.models.find(f"{name}+onnx-{graph}" if graph else name)
    except NotFound:
        model = None
        release = open_release("starter" if settings.model == "off" else settings.model)
        if settings.model != "off" and f"{release.name}@{release.version}" != name:
            raise BadModel(
                f"the score is of {scored_by}, which is neither registered nor the configured {settings.model}",
                hint="set FRAUDGUARD_MODEL to the folder of that release",
            ) from None
    if not graph and precision != "vllm":
        settings = settings.model_copy(update={"precision": precision})
    return load_engine(settings, model)


def open_engine(settings: Settings) -> BlockingEngine:
    """The configured model: on this machine, or on the server that settings name. Raises BadModel, BadSettings."""
    if settings.engine_url:
        return _connect(settings, str(settings.engine_url))
    release = open_release(settings.model)
    if release.graph is None:
        if (release.folder / SUMS).is_file():
            verify(release.folder)
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
        serving = None
        if parts.scorer:
            serving = Serving(parts.scorer, parts.model, partial(open_model, settings), parts.counter.id, settings)
        try:
            yield Pipeline(
                settings=settings,
                repository=repository,
                fields=features_in(settings.base_currency),
                serving=serving,
                counter=parts.counter,
                rates=parts.rates,
                clock=clock,
            )
        finally:
            if serving:
                serving.close()
