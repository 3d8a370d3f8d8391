"""A base in four bits to train beside (QLoRA, arXiv 2305.14314): NF4 with its scales quantized too.

Knows bitsandbytes, on the CPU and on GPUs. Nothing of this is served: the adapter is merged into the base as it is
published, and what precision that gets is decided afterwards (fraudguard/engine/loader.py).
"""

import torch
from torch import nn
from transformers import Qwen2ForCausalLM

from fraudguard.errors import BadSettings


def in_four_bits(base: Qwen2ForCausalLM, compute: torch.dtype, device: torch.device) -> Qwen2ForCausalLM:
    """The base, the linear layers of its body on the device and in NF4, multiplying in `compute`.

    Raises BadSettings.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        hint = "pip install 'fraudguard[finetune]'"
        raise BadSettings("needs bitsandbytes", path="four_bit", hint=hint) from error
    layers = [(name, layer) for name, layer in base.model.named_modules() if isinstance(layer, nn.Linear)]
    for name, layer in layers:
        four = Linear4bit(layer.in_features, layer.out_features, layer.bias is not None, compute, quant_type="nf4")
        four.weight = Params4bit(layer.weight.detach(), requires_grad=False, quant_type="nf4")
        four.bias = layer.bias
        # Its inference kernel for CPUs would round the scales, in place, the first time that dev is read.
        four.support_avx512bf16_for_cpu = False
        base.model.set_submodule(name, four.to(device))  # moving quantizes
    base.is_loaded_in_4bit = True  # peft looks for it
    return base
