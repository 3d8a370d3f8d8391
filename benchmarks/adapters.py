"""`python -m benchmarks.adapters`: many tenants' adapters in one packed pass, beside a merged model for each tenant.

Workload A of benchmarks/engine.py (timelines that exist grow by an event each, caches have read what was before); each
account is some tenant's. Three ways read every batch before anybody sees the next: together, one engine with the
adapters beside its base; apart, a merged engine for each tenant, which reads its part of the batch; and one merged
engine that reads all of it as if there were one tenant, which is what packing without adapters costs. The ratios of
their rates are medians over the batches, so that a noisy machine is noisy for all.

Parity: the hidden states of together against apart, all of them; a row out of tolerance is void. Adapters are random,
of all projections. "0.5b" is Qwen2.5-0.5B's shape with random weights; its layers are alike, and --layers takes fewer.
"""

import argparse
import copy
import platform
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen2Model

from benchmarks.engine import ACCOUNTS, build
from benchmarks.peers import CACHE_BYTES, GivenIds, SeenHead
from benchmarks.workloads import LENGTH_MAX, Event, parity, warm
from fraudguard.domain import ScoreRequest
from fraudguard.engine.adapters import LowRank
from fraudguard.engine.engine import Engine
from fraudguard.engine.loader import Loaded
from fraudguard.engine.precision import Precision
from fraudguard.engine.quantization import quantize
from fraudguard.engine.qwen2 import Qwen2

COLUMNS = (
    "tenants", "together, events/s", "apart, events/s", "one merged, events/s", "together : one merged",
    "together : apart", "MiB together", "MiB apart", "max difference", "cosine", "parity",
)  # fmt: skip

Adapter = dict[str, LowRank]


def random_adapter(model: Qwen2Model, seed: int, rank: int) -> Adapter:
    """Of all projections; each adds about a tenth of what the projection gives."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            high, wide = module.weight.shape
            down, up = (torch.randn(shape, generator=random) for shape in ((rank, wide), (high, rank)))
            found[name] = LowRank(down / rank**0.5, up * module.weight.std() * 0.1)
    return found


def ready(model: Qwen2Model, precision: Precision, adapters: Sequence[Adapter]) -> Qwen2:
    """Quantized, then with the adapters beside it."""
    backbone = Qwen2.of(model.to(torch.bfloat16) if precision == "bf16" else model)
    quantize(backbone, precision)
    if adapters:
        backbone.adapt(adapters)
    return backbone


@torch.no_grad()
def merged(model: Qwen2Model, adapter: Adapter, precision: Precision) -> Qwen2:
    """The adapter in the weights, then quantized."""
    model = copy.deepcopy(model)
    for name, part in adapter.items():
        model.get_submodule(name).weight += part.up @ part.down
    return ready(model, precision, [])


class Way:
    """One way to read batches: engines, the tenants of each, and what it took."""

    def __init__(self, engines: dict[tuple[int, ...], Engine], heads: dict[int, SeenHead]) -> None:
        """engines: by the tenants that each reads for. heads: by tenant."""
        self.engines, self.heads = engines, heads
        self.seconds: list[float] = []  # by batch

    def read(self, events: Sequence[Event], count: int) -> dict[int, Tensor]:
        """The hidden states by tenant, in order; timed."""
        requests = [of_tenant(event, count) for event in events]
        began = time.perf_counter()
        for tenants, engine in self.engines.items():
            engine.score([request for number, request in requests if number in tenants])
        self.seconds.append(time.perf_counter() - began)
        return {number: self.heads[number].seen for number in {number for number, _ in requests}}

    @property
    def mib(self) -> float:
        """The weights of all its engines."""
        return sum(engine.weight_bytes for engine in self.engines.values()) / (1 << 20)


def of_tenant(event: Event, count: int) -> tuple[int, ScoreRequest]:
    """The tenant's number and the event's request in its name."""
    number = int(event.account.removeprefix("account-")) % count
    return number, replace(event.request, tenant=str(number))


def measure(
    model: Qwen2Model, adapters: Sequence[Adapter], apart: Sequence[Qwen2], options: argparse.Namespace
) -> list[object]:
    """A line of the table, for as many tenants as there are adapters."""
    hidden, count = model.config.hidden_size, len(adapters)

    def engine(backbone: Qwen2, own: SeenHead, tenants: dict[str, SeenHead]) -> Engine:
        loaded = Loaded(backbone.to(options.device), own, GivenIds(), tenants=tenants)
        return Engine("benchmark", loaded, CACHE_BYTES)

    heads = {number: SeenHead(hidden) for number in range(count)}
    beside = ready(copy.deepcopy(model), options.precision, [{}, *adapters])
    everybody = tuple(range(count))
    ways = [Way({everybody: engine(beside, SeenHead(hidden), {str(number): heads[number] for number in heads})}, heads)]
    heads = {number: SeenHead(hidden) for number in range(count)}
    ways.append(Way({(number,): engine(apart[number], heads[number], {}) for number in everybody}, heads))
    heads = dict.fromkeys(everybody, SeenHead(hidden))
    ways.append(Way({everybody: engine(apart[0], heads[0], {})}, heads))

    found: list[Tensor] = []
    wanted: list[Tensor] = []
    longest = min(LENGTH_MAX, model.config.max_position_embeddings)
    batches = warm(1, ACCOUNTS, options.events // options.batch, options.batch, model.config.vocab_size, longest)
    for batch in batches:
        states = []
        for way in ways:
            if batch.before:
                way.read(batch.before, count)
                way.seconds.pop()
            states.append(way.read(batch.events, count))
        found += states[0].values()
        wanted += [states[1][number] for number in states[0]]
    agreement = parity(torch.cat(found), torch.cat(wanted))
    together, parts, one = (np.array(way.seconds) for way in ways)
    return [
        count, *(round(options.batch * len(way.seconds) / sum(way.seconds), 1) for way in ways),
        f"{np.median(one / together):.2f}", f"{np.median(parts / together):.2f}",
        *(round(way.mib, 1) for way in ways[:2]), f"{agreement.difference:.1e}", round(agreement.cosine, 5),
        "equal" if agreement.holds(exact=options.precision == "fp32") else "void",
    ]  # fmt: skip


def main() -> None:
    """Run, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("starter", "0.5b"), default="starter")
    parser.add_argument("--layers", type=int, help="the first of them; all")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="int8")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tenants", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--events", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32, help="events that come together")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = build(options.model)
    if options.layers:
        model.layers = model.layers[: options.layers]
        model.config.num_hidden_layers = len(model.layers)
        model.config.layer_types = model.config.layer_types[: options.layers]
    adapters = [random_adapter(model, seed, options.rank) for seed in range(max(options.tenants))]
    apart = [merged(model, adapter, options.precision) for adapter in adapters]
    print(f"{platform.platform()}, {vars(options)}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for count in options.tenants:
        line = measure(model, adapters[:count], apart[:count], options)
        print(f"| {' | '.join(map(str, line))} |", flush=True)


if __name__ == "__main__":
    main()
