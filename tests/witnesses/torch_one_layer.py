"""The network for modular addition in PyTorch, as one writes it: every position, then the last."""

import torch
from torch import nn


class OneLayerTransformer(nn.Module):
    def __init__(self, modulus, dim=128, heads=4, hidden=512, residual=False):
        super().__init__()
        self.modulus, self.heads, self.residual = modulus, heads, residual
        shapes = {
            "embedding": (modulus + 1, dim),
            "positions": (3, dim),
            "query": (dim, dim),
            "key": (dim, dim),
            "value": (dim, dim),
            "out": (dim, dim),
            "up": (dim, hidden),
            "up_bias": (hidden,),
            "down": (hidden, dim),
            "down_bias": (dim,),
            "unembedding": (dim, modulus + 1),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

        for name in ("query_bias", "value_bias", "out_bias", "unembedding_bias"):
            self.register_parameter(name, None)

    def load(self, arrays):
        """Take the arrays of the same names; biases that are not among them stay out."""
        for name, array in arrays.items():
            setattr(self, name, nn.Parameter(torch.tensor(array)))
        return self

    def linear(self, x, name):
        return nn.functional.linear(x, getattr(self, name).T, getattr(self, name + "_bias", None))

    def forward(self, pairs):
        n = len(pairs)
        equals = torch.full((n, 1), self.modulus)
        x = self.embedding[torch.cat([pairs, equals], 1)] + self.positions
        q, k, v = (
            self.linear(x, w).view(n, 3, self.heads, -1).transpose(1, 2)
            for w in ("query", "key", "value")
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        z = self.linear(mixed.transpose(1, 2).reshape(n, 3, -1), "out")
        if self.residual:
            z = z + x
        y = self.linear(torch.relu(self.linear(z, "up")), "down")
        return self.linear(y + z if self.residual else y, "unembedding")[:, -1]


class LastPosition(OneLayerTransformer):
    """The same function, computed for the last position alone after keys and values."""

    def forward(self, pairs):
        n, dim = len(pairs), self.query.shape[0]
        x = self.embedding[pairs] + self.positions[:2]
        equals = (self.embedding[self.modulus] + self.positions[2]).expand(n, 1, dim)
        x = torch.cat([x, equals], 1)
        q = self.linear(x[:, -1:], "query").view(n, 1, self.heads, -1).transpose(1, 2)
        k, v = (
            self.linear(x, w).view(n, 3, self.heads, -1).transpose(1, 2) for w in ("key", "value")
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        z = self.linear(mixed.reshape(n, dim), "out")
        if self.residual:
            z = z + x[:, -1]
        y = self.linear(torch.relu(self.linear(z, "up")), "down")
        return self.linear(y + z if self.residual else y, "unembedding")


def train(network, pairs, labels, epochs, learning_rate=1e-3, weight_decay=1.0, beta2=0.98):
    """Full-batch AdamW; returns the losses."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, beta2)
    )
    losses = []
    for _ in range(epochs):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(pairs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]
