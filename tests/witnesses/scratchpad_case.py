"""The scratchpad of paper B that is held to PyTorch: its sizes, its strings, names that differ."""

import numpy as np

SIZES = {"bits": 4, "dim": 8, "heads": 2, "depth": 2}
BITS = np.arange(16)[:, None] >> np.arange(3, -1, -1)[None] & 1  # the order of jaxsens.boolean
WRITTEN = BITS[::-1, ::-1].copy()  # not what is right: any bits may have been written
SHIFT = 1.35  # added to the answers that are fed back, so that bits of both kinds are
LAYER = r"\1.layers.\2."
BLOCK = r"^(encoder|decoder)\.(\d+)\."
NAMES = (
    (r"^(tokens|positions)$", r"\1.weight"),
    (rf"{BLOCK}attention\.qkv\.(weight|bias)", rf"{LAYER}self_attn.in_proj_\3"),
    (rf"{BLOCK}cross\.qkv\.(weight|bias)", rf"{LAYER}multihead_attn.in_proj_\3"),
    (rf"{BLOCK}attention\.out", rf"{LAYER}self_attn.out_proj"),
    (rf"{BLOCK}cross\.out", rf"{LAYER}multihead_attn.out_proj"),
    (rf"{BLOCK}attention_norm", rf"{LAYER}norm1"),
    (rf"{BLOCK}mlp_norm", rf"{LAYER}norm2"),
    (rf"{BLOCK}norm", rf"{LAYER}norm"),
    (rf"{BLOCK}up", rf"{LAYER}linear1"),
    (rf"{BLOCK}down", rf"{LAYER}linear2"),
    (r"^(encoder|decoder)_norm", r"\1.norm"),
    (r"^(encoder|decoder)\.", r"transformer.\1."),
)
