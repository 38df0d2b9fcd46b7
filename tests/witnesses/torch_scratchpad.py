"""The scratchpad of paper B in PyTorch: its own encoder-decoder, whose answers are fed back."""

import torch
from torch import nn


class Scratchpad(nn.Module):
    def __init__(self, bits, dim=32, heads=2, depth=2):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(3, dim // 2), nn.Embedding(bits, dim // 2)
        self.transformer = nn.Transformer(
            dim, heads, depth, depth, dim, dropout=0.0, batch_first=True
        )
        self.head = nn.Linear(dim, 1)

    def embed(self, ids):
        positions = self.positions.weight[: ids.shape[1]].expand(len(ids), -1, -1)
        return torch.cat([self.tokens(ids), positions], dim=-1)

    def forward(self, bits, written):
        """The answers after each of the bits written, none included."""
        ids = torch.cat([torch.full((len(bits), 1), 2), written], dim=1)
        causal = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        x = self.transformer(self.embed(bits), self.embed(ids), tgt_mask=causal)
        return self.head(x)[..., 0]

    @torch.no_grad()
    def write(self, bits):
        written, answers = bits[:, :0], []
        for _ in range(bits.shape[1]):
            answers.append(self(bits, written)[:, -1])
            written = torch.cat([written, (answers[-1:][0] > 0.5).long()[:, None]], dim=1)
        return torch.stack(answers, dim=1)
