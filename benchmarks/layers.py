"""`python -m benchmarks.layers`: single linear layers in every precision, ours and torchao's, as a Markdown table.

The starter's layers or (--model 0.5b) Qwen2.5-0.5B's, random weights, on the CPU or (--device cuda) a GPU. Time is the
best of several runs; cosine is the least of any row's with float32's. torchao is no part of the project
(docs/decisions/0005-precisions.md): where it is not installed its columns say so.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fraudguard.engine.precision import Hardware, Precision, choose
from fraudguard.engine.quantization import GROUP, quantize
from fraudguard.errors import BadSettings

# (in, out): query, key and value; gate and up; down.
LAYERS = {
    "starter": ((192, 320), (192, 768), (384, 192)),
    "0.5b": ((896, 1152), (896, 9728), (4864, 896)),
}
ROWS = (16, 256)
SECONDS = 0.1  # of one measurement, of which the best of three counts


def torchao_made(linear: nn.Linear, precision: Precision) -> nn.Module:
    """The same layer by torchao. Raises ImportError, or KeyError for what it does not have here."""
    from torchao import quantization
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

    def int4() -> Any:
        if linear.weight.is_cuda:
            return quantization.Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="tile_packed_to_4d")
        return PrototypeInt4WeightOnlyConfig(group_size=GROUP)

    config: dict[Precision, Callable[[], Any]] = {
        "int8": lambda: quantization.Int8DynamicActivationInt8WeightConfig(),
        "int4": int4,
        "fp8": lambda: quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow()),
    }
    model = nn.Sequential(linear)
    quantization.quantize_(model, config[precision]())
    return model


def ours_made(linear: nn.Linear, precision: Precision) -> nn.Module:
    """By engine/quantization.py; calibrated for what it will be given."""
    model = nn.Sequential(linear)
    quantize(model, precision, {"0": (-4.0, 4.0)})
    return model


def best_us(call: Callable[[], Tensor]) -> float:
    """Microseconds a call."""
    times = []
    for _ in range(4):  # the first sets up
        count, began = 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < SECONDS:
            out = call()
            count += 1
        if out.is_cuda:
            torch.cuda.synchronize()
            passed = time.perf_counter() - began
        times.append(passed / count * 1e6)
    return min(times[1:])


@torch.inference_mode()
def cell(
    make: Callable[[nn.Linear, Precision], nn.Module], precision: Precision, weight: Tensor, x: Tensor
) -> tuple[str, str]:
    """Time and cosine, or why there are none."""
    kind = torch.float32 if precision == "fp32" or precision.startswith("int8") else torch.bfloat16
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=kind, device=x.device)
    linear.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    try:
        made, given = make(linear, precision), x.to(kind)
        cosine = F.cosine_similarity(made(given).float(), F.linear(x, weight), dim=1).min().item()
        return f"{best_us(lambda: made(given)):,.0f}", f"{cosine:.5f}"
    except KeyError:
        return "-", "-"
    except Exception as error:  # torchao raises kinds of its own for what its build lacks
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}", "-"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", choices=LAYERS, default="starter")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device: Literal["cpu", "cuda"] = options.device
    makers: list[Any] = [ours_made, torchao_made]
    print("| rows x in x out | precision | ours, us | cosine | torchao, us | cosine |")
    print("|---|---|---|---|---|---|")
    wanted: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int8-asymmetric", "int8-tensor", "int4", "fp8")
    for inputs, outputs in LAYERS[options.model]:
        weight = torch.randn(outputs, inputs, device=device) * inputs**-0.5
        for rows in ROWS:
            x = torch.randn(rows, inputs, device=device)
            for precision in wanted:
                try:
                    choose(precision, Hardware.of(device))
                except BadSettings as error:
                    print(f"| {rows} x {inputs} x {outputs} | {precision} | {error.reason} | - | - | - |")
                    continue
                cells = [text for make in makers for text in cell(make, precision, weight, x)]
                print(f"| {rows} x {inputs} x {outputs} | {precision} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
