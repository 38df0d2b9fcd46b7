"""RoBERTa, GPT-2 and the LSTM classifier in PyTorch, stated plainly: one head after another.

Attribute names follow `jaxsens.models` but for the LSTM, which is PyTorch's own.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Attention(nn.Module):
    def __init__(self, dim, heads, fused, kind, causal):
        super().__init__()
        self.heads, self.fused, self.kind, self.causal = heads, fused, kind, causal
        if fused:
            self.qkv = nn.Linear(dim, 3 * dim)
        else:
            self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x, mask):
        if self.fused:
            parts = self.qkv(x).chunk(3, dim=-1)
        else:
            parts = (self.query(x), self.key(x), self.value(x))
        # As in the libraries: a large negative number is added where a key is not to be seen.
        added = torch.zeros(len(x), 1, x.shape[1]).masked_fill(~mask[:, None], -1e30)
        if self.causal:
            added = added + torch.full((x.shape[1], x.shape[1]), -1e30).triu(1)
        mixed = []
        for q, k, v in zip(*(part.chunk(self.heads, dim=-1) for part in parts), strict=True):
            scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]) + added
            weights = scores.softmax(-1) if self.kind == "softmax" else F.relu(scores)
            mixed.append(weights @ v)
        return self.out(torch.cat(mixed, dim=-1))


class Block(nn.Module):
    def __init__(self, dim, heads, mlp_dim, *, norm, fused, kind, causal, activation):
        super().__init__()
        self.norm, self.activation = norm, activation
        self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, fused, kind, causal)
        self.up, self.down = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def mlp(self, x):
        return self.down(F.gelu(self.up(x), approximate=self.activation))

    def forward(self, x, mask):
        if self.norm == "pre":
            x = x + self.attention(self.attention_norm(x), mask)
            return x + self.mlp(self.mlp_norm(x))
        x = self.attention_norm(x + self.attention(x, mask))
        return self.mlp_norm(x + self.mlp(x))


class RoBERTa(nn.Module):
    def __init__(self, *, vocabulary, classes, depth, heads, dim, mlp_dim, positions, attention):
        super().__init__()
        self.words = nn.Parameter(torch.zeros(vocabulary, dim))
        self.positions = nn.Parameter(torch.zeros(positions, dim))
        self.kinds = nn.Parameter(torch.zeros(1, dim))
        self.norm = nn.LayerNorm(dim)
        how = {"norm": "post", "fused": False, "kind": attention, "causal": False}
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_dim, activation="none", **how) for _ in range(depth)
        )
        self.dense, self.head = nn.Linear(dim, dim), nn.Linear(dim, classes)

    def forward(self, ids, mask):
        places = torch.where(mask, mask.long().cumsum(1) + 1, 1)
        x = self.norm(self.words[ids] + self.positions[places] + self.kinds[0])
        for block in self.blocks:
            x = block(x, mask)
        return self.head(torch.tanh(self.dense(x[:, 0])))


class GPT2(nn.Module):
    def __init__(self, *, vocabulary, classes, depth, heads, dim, positions, readout):
        super().__init__()
        self.readout = readout
        self.words = nn.Parameter(torch.zeros(vocabulary, dim))
        self.positions = nn.Parameter(torch.zeros(positions, dim))
        how = {"norm": "pre", "fused": True, "kind": "softmax", "causal": True}
        self.blocks = nn.ModuleList(
            Block(dim, heads, 4 * dim, activation="tanh", **how) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes, bias=False)

    def forward(self, ids, mask):
        x = self.words[ids] + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        logits = self.head(self.norm(x))
        if self.readout == "last-padded":
            return logits[:, -1]
        pairs = zip(logits, mask, strict=True)
        return torch.stack([row[int(real.sum()) - 1] for row, real in pairs])


class LSTM(nn.Module):
    def __init__(self, *, vocabulary, classes, depth, dim):
        super().__init__()
        self.words = nn.Parameter(torch.zeros(vocabulary, dim))
        self.norm = nn.LayerNorm(dim)
        self.lstm = nn.LSTM(dim, dim, depth, batch_first=True)
        self.head = nn.Linear(dim, classes)

    def forward(self, ids, mask):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.norm(self.words[ids]), mask.sum(1), batch_first=True, enforce_sorted=False
        )
        _, (hidden, _) = self.lstm(packed)
        return self.head(hidden[-1])
