"""The precisions a model can be run in, and which of them a machine can. Knows no model and no layer.

Imports torch only to ask it: what reads a release without torch knows the names too.
"""

from dataclasses import dataclass
from typing import Literal, Self

from fraudguard.errors import BadSettings

Precision = Literal[
    "fp32", "bf16", "int8", "int8-asymmetric", "int8-tensor", "int8-tensor-asymmetric", "int4", "fp8"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a device multiplies by instructions of its own.

    bf16: a CPU's AMX, a GPU's compute capability of 8.0. int8: a CPU's VNNI or AMX; not asked of a GPU, whose int8
    products are not used here. fp8: a GPU's 8.9 (Ada, Hopper).
    """

    device: Literal["cpu", "cuda"]
    bf16: bool = False
    int8: bool = False
    fp8: bool = False

    @classmethod
    def of(cls, device: Literal["cpu", "cuda"]) -> Self:
        """This machine's CPU, or its current GPU."""
        import torch

        if device == "cuda":
            capability = torch.cuda.get_device_capability()
            return cls(device, bf16=capability >= (8, 0), fp8=capability >= (8, 9))
        amx = torch.cpu._is_amx_tile_supported()
        return cls(device, bf16=amx, int8=amx or torch.cpu._is_vnni_supported())


def choose(asked: Precision | Literal["auto"], hardware: Hardware) -> Precision:
    """What was asked for; for "auto" bf16, else int8 on a CPU, fp32 where both would be emulated.

    Raises BadSettings for what the device has no products for. bf16 that is emulated is slow, but right, and allowed.
    """
    if asked == "auto":
        if hardware.bf16:
            return "bf16"
        return "int8" if hardware.int8 else "fp32"
    if hardware.device == "cuda" and asked.startswith("int8"):
        raise BadSettings(f"{asked} is for the CPU", path="precision", hint="bf16, int4 or fp8 on a GPU")
    if asked == "int4" and hardware.device == "cuda" and not hardware.bf16:
        raise BadSettings("int4 needs a GPU of compute capability 8.0", path="precision", hint="fp32 on this one")
    if asked == "fp8" and not hardware.fp8:
        hint = f"auto would be {choose('auto', hardware)} here"
        raise BadSettings("fp8 needs a GPU of compute capability 8.9", path="precision", hint=hint)
    return asked
