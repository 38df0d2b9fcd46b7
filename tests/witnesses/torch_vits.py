"""The vision transformers once more, stated plainly in PyTorch from their papers.

Attribute names follow `jaxsens.models`, so that every tensor can be paired by its path. Images are
NCHW here. Nothing is shared with the code under test.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Patchify(nn.Module):
    """Cut into patches with explicit loops: (N, tokens, row-column-channel)."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, images):
        p = self.size
        n, _, height, width = images.shape
        tokens = []
        for i in range(0, height, p):
            for j in range(0, width, p):
                patch = images[:, :, i : i + p, j : j + p]
                tokens.append(patch.permute(0, 2, 3, 1).reshape(n, -1))
        return torch.stack(tokens, dim=1)


class LocalityAttention(nn.Module):
    def __init__(self, dim, heads, head_dim, dropout):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(head_dim**-0.5)))
        self.attention_dropout = nn.Dropout(dropout)
        self.out = nn.Linear(heads * head_dim, dim)
        self.out_dropout = nn.Dropout(dropout)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (
            part.reshape(n, t, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, dim=-1)
        )
        scores = q @ k.transpose(-1, -2) * self.log_temperature.exp()
        scores = scores.masked_fill(torch.eye(t, dtype=torch.bool), -torch.inf)
        mixed = self.attention_dropout(scores.softmax(dim=-1)) @ v
        return self.out_dropout(self.out(mixed.transpose(1, 2).reshape(n, t, -1)))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden, dropout):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.hidden_dropout, self.out_dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x):
        hidden = self.hidden_dropout(F.gelu(self.up(self.norm(x))))
        return self.out_dropout(self.down(hidden))


class LocalityBlock(nn.Module):
    def __init__(self, dim, heads, head_dim, mlp_dim, dropout):
        super().__init__()
        self.attention = LocalityAttention(dim, heads, head_dim, dropout)
        self.feed_forward = FeedForward(dim, mlp_dim, dropout)

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.feed_forward(x)


class ViTSmall(nn.Module):
    def __init__(
        self,
        *,
        image_size,
        patch_size,
        channels,
        classes,
        depth=8,
        heads=32,
        dim=64,
        head_dim=64,
        mlp_dim=256,
        dropout=0.1,
        embedding_dropout=0.1,
    ):
        super().__init__()
        patch_dim = 5 * channels * patch_size**2
        self.patchify = Patchify(patch_size)
        self.patch_norm = nn.LayerNorm(patch_dim)
        self.embedding = nn.Linear(patch_dim, dim)
        self.positions = nn.Parameter(torch.randn(1, 1 + (image_size // patch_size) ** 2, dim))
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.embedding_dropout = nn.Dropout(embedding_dropout)
        self.blocks = nn.ModuleList(
            LocalityBlock(dim, heads, head_dim, mlp_dim, dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        # (left, right, top, bottom) pads of the published code.
        pads = ((1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))
        stacked = torch.cat([images, *(F.pad(images, pad) for pad in pads)], dim=1)
        x = self.embedding(self.patch_norm(self.patchify(stacked)))
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions
        x = self.embedding_dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, 0]))


class Attention(nn.Module):
    def __init__(self, dim, heads, head_dim, bias):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=bias)
        self.out = nn.Linear(heads * head_dim, dim, bias=bias)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (
            part.reshape(n, t, self.heads, self.head_dim).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = (q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, t, -1))


class Block(nn.Module):
    def __init__(self, dim, heads, head_dim, mlp_dim, bias=False, epsilon=1e-5):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=epsilon)
        self.attention = Attention(dim, heads, head_dim, bias)
        self.mlp_norm = nn.LayerNorm(dim, eps=epsilon)
        self.up, self.down = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class ViTSimple(nn.Module):
    def __init__(
        self,
        *,
        image_size,
        patch_size,
        channels,
        classes,
        depth=6,
        heads=16,
        dim=64,
        head_dim=64,
        mlp_dim=512,
    ):
        super().__init__()
        patch_dim = channels * patch_size**2
        self.patchify = Patchify(patch_size)
        self.patch_norm = nn.LayerNorm(patch_dim)
        self.embedding = nn.Linear(patch_dim, dim)
        self.embedding_norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Block(dim, heads, head_dim, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        side, quarter = image_size // patch_size, dim // 4
        self.fixed = torch.zeros(side * side, dim)
        for row in range(side):
            for column in range(side):
                for k in range(quarter):
                    w = 10000 ** -(k / (quarter - 1))
                    for part, value in enumerate(
                        (
                            math.sin(w * column),
                            math.cos(w * column),
                            math.sin(w * row),
                            math.cos(w * row),
                        )
                    ):
                        self.fixed[row * side + column, part * quarter + k] = value

    def forward(self, images):
        x = self.embedding_norm(self.embedding(self.patch_norm(self.patchify(images))))
        x = x + self.fixed
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(dim=1))


class ViT(nn.Module):
    def __init__(
        self,
        *,
        image_size,
        patch_size,
        channels,
        classes,
        depth=24,
        heads=16,
        dim=1024,
        mlp_dim=4096,
    ):
        super().__init__()
        self.embedding = nn.Conv2d(channels, dim, patch_size, stride=patch_size)
        self.cls = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 1 + (image_size // patch_size) ** 2, dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, dim // heads, mlp_dim, bias=True, epsilon=1e-6) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def forward(self, images):
        x = self.embedding(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])
