"""What auto picks, and what is refused, on hardware that is described; what this machine is, by its own flags."""

from pathlib import Path
from typing import get_args

import pytest

from fraudguard.config import Settings
from fraudguard.engine.precision import Hardware, Precision, choose
from fraudguard.errors import BadSettings

PLAIN = Hardware("cpu")
VNNI = Hardware("cpu", int8=True)
AMX = Hardware("cpu", bf16=True, int8=True)
TURING = Hardware("cuda")
AMPERE = Hardware("cuda", bf16=True)
HOPPER = Hardware("cuda", bf16=True, fp8=True)


@pytest.mark.parametrize(
    ("hardware", "picked"),
    [(PLAIN, "fp32"), (VNNI, "int8"), (AMX, "bf16"), (TURING, "fp32"), (AMPERE, "bf16"), (HOPPER, "bf16")],
)
def test_auto_is_what_the_hardware_computes(hardware: Hardware, picked: Precision) -> None:
    """Never what would be emulated."""
    assert choose("auto", hardware) == picked


@pytest.mark.parametrize("hardware", [PLAIN, VNNI, AMX, TURING, AMPERE, HOPPER])
@pytest.mark.parametrize("precision", get_args(Precision))
def test_a_choice_is_kept_or_refused(hardware: Hardware, precision: Precision) -> None:
    """fp8 where there is fp8, int8 on a CPU, int4 on a CPU or a GPU with bf16, the others anywhere."""
    possible = {"fp8": hardware.fp8, "int4": hardware.device == "cpu" or hardware.bf16}
    if possible.get(precision, hardware.device == "cpu" or not precision.startswith("int8")):
        assert choose(precision, hardware) == precision
    else:
        with pytest.raises(BadSettings, match=rf"precision: {precision} .+ \(.+\)") as refused:
            choose(precision, hardware)
        assert refused.value.hint


def test_this_cpu_is_what_the_kernel_says_it_is() -> None:
    """The flags of /proc/cpuinfo."""
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    if "avx512f" not in flags:
        pytest.skip("no x86 with AVX-512")
    found = Hardware.of("cpu")
    assert found.int8 == bool({"avx512_vnni", "amx_int8"} & flags)
    assert found.bf16 == ("amx_bf16" in flags)
    assert not found.fp8


def test_settings_take_every_precision() -> None:
    """config.py may not import the engine, so it has the words again."""
    assert set(get_args(Settings.model_fields["precision"].annotation)) == {"auto", *get_args(Precision)}
