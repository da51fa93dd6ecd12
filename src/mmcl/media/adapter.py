"""Low-rank changes of an encoder's weights: how a fine-tuned encoder fits into a small file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["add_adapter", "write_adapter"]


def add_adapter(encoder: nn.Module, path: Path) -> None:
    """Add the changes of a file to the weights of an encoder.

    The file has a pair of matrices for every weight that changes, ``NAME.left`` ``[out, r]`` and
    ``NAME.right`` ``[r, in]``; their product is added.

    Raises:
        ValueError: If they do not fit the encoder.
    """
    changes = load_file(path)
    weights = dict(encoder.named_parameters())
    for name in sorted({key.rpartition(".")[0] for key in changes}):
        left, right = changes[f"{name}.left"].float(), changes[f"{name}.right"].float()
        if name not in weights or weights[name].shape != (len(left), right.shape[1]):
            raise ValueError(f"its changes are those of another encoder ({name})")
        with torch.no_grad():
            weights[name].add_(left @ right)


def write_adapter(tuned: Any, path: Path) -> None:
    """Write the changes that LoRA made, in half precision.

    Args:
        tuned: An encoder wrapped by peft.
        path: File to write.
    """
    changes: dict[str, Tensor] = {}
    for name, module in tuned.get_base_model().named_modules():
        if not hasattr(module, "lora_A"):
            continue
        key = f"{name}.weight"
        left = module.lora_B["default"].weight * module.scaling["default"]
        changes[f"{key}.left"] = left.detach().half().contiguous()
        changes[f"{key}.right"] = module.lora_A["default"].weight.detach().half().contiguous()
    save_file(changes, path)
