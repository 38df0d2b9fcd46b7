"""The transformer of paper B that is held to PyTorch: its sizes, its strings, names that differ."""

import numpy as np

SIZES = {"bits": 5, "dim": 8, "heads": 2, "depth": 3}
BITS = np.arange(32)[:, None] >> np.arange(4, -1, -1)[None] & 1  # the order of jaxsens.boolean
BLOCK = r"blocks\.(\d+)\."
LAYER = r"encoder.layers.\1."
NAMES = (
    (r"^(tokens|positions)$", r"\1.weight"),
    (rf"{BLOCK}attention\.qkv\.(weight|bias)", rf"{LAYER}self_attn.in_proj_\2"),
    (rf"{BLOCK}attention\.out", rf"{LAYER}self_attn.out_proj"),
    (rf"{BLOCK}attention_norm", rf"{LAYER}norm1"),
    (rf"{BLOCK}mlp_norm", rf"{LAYER}norm2"),
    (rf"{BLOCK}up", rf"{LAYER}linear1"),
    (rf"{BLOCK}down", rf"{LAYER}linear2"),
)
