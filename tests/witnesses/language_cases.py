"""The language models that are held to PyTorch: our arguments, and what names differ."""

import numpy as np
from witnesses.references import numbers

LSTM_NAMES = tuple(
    (rf"layers\.(\d+)\.{ours}", rf"lstm.{theirs}_l\1")
    for ours, theirs in {
        "input_kernel": "weight_ih",
        "hidden_kernel": "weight_hh",
        "input_bias": "bias_ih",
        "hidden_bias": "bias_hh",
    }.items()
)
SIZES = {"vocabulary": 11, "classes": 3, "depth": 2, "dim": 8}
ENCODER = {**SIZES, "heads": 2, "mlp_dim": 12, "positions": 9}
DECODER = {**SIZES, "heads": 2, "positions": 7}
# case: our name, the statement, what both take, what ours alone takes, names that differ
RAW = {"perturbed": "raw"}
CASES = {
    "roberta": ("roberta", "RoBERTa", {**ENCODER, "attention": "softmax"}, {}, ()),
    "roberta-relu": ("roberta", "RoBERTa", {**ENCODER, "attention": "relu"}, {}, ()),
    "gpt2": ("gpt2", "GPT2", {**DECODER, "readout": "last"}, RAW, ()),
    "gpt2-padded": ("gpt2", "GPT2", {**DECODER, "readout": "last-padded"}, RAW, ()),
    "lstm": ("lstm", "LSTM", SIZES, {}, LSTM_NAMES),
}
LENGTHS = np.array([7, 3, 1, 5])
LABELS = np.array([0, 2, 1, 2])


def text():
    """Four texts of 7, 3, 1 and 5 tokens, padded on the right with token 1."""
    mask = np.arange(7)[None] < LENGTHS[:, None]
    ids = ((numbers("ids", (4, 7)) + 1) / 2 * SIZES["vocabulary"]).astype(np.int32)
    return {"ids": np.where(mask, ids, 1), "mask": mask}
