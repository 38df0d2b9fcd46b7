"""The transformer of paper B in PyTorch: its own encoder, and the mean squared error of strings."""

import torch
from torch import nn


class LengthTransformer(nn.Module):
    def __init__(self, bits, dim=128, heads=2, depth=2):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(2, dim // 2), nn.Embedding(bits, dim // 2)
        layer = nn.TransformerEncoderLayer(dim, heads, dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 1)

    def forward(self, bits):
        positions = self.positions.weight.expand(len(bits), -1, -1)
        x = torch.cat([self.tokens(bits), positions], dim=-1)
        return self.head(self.encoder(x)[:, -1])[:, 0]

    def blowup(self, bits):
        """1 / std of every LayerNorm's input, by name: the largest over tokens, in the last block
        of the last token; in the order in which they are applied."""
        found = {}

        def listen(name, last):
            def hook(module, given):
                scale = 1 / given[0].std(dim=-1)
                found[name] = scale[:, -1] if last else scale.max(dim=1).values

            return hook

        hooks = [
            getattr(layer, norm).register_forward_pre_hook(
                listen(f"{i}.{norm}", layer is self.encoder.layers[-1])
            )
            for i, layer in enumerate(self.encoder.layers)
            for norm in ("norm1", "norm2")
        ]
        self(bits)
        for hook in hooks:
            hook.remove()
        return found


def train(network, steps, batch, learning_rate=3e-4, weight_decay=0.1):
    """AdamW on PARITY of fresh uniform strings; returns the losses."""
    n = network.positions.num_embeddings
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    losses = []
    for _ in range(steps):
        bits = torch.randint(0, 2, (batch, n))
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(network(bits), (bits.sum(1) % 2).float())
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]
