"""The network options that every command has."""

from __future__ import annotations

from dataclasses import dataclass, fields

from .architecture import Architecture


@dataclass(frozen=True)
class Network:
    """A network on {±1}^d, infinitely wide; see theory/architecture.py for the layers."""

    d: int = 8
    """Number of bits; `tokens` must divide it."""
    tokens: int = 1
    """Number of tokens T; each is d/T consecutive bits."""
    depth: int = 1
    """Number of blocks."""
    attention: str = "linear"
    """linear: linear attention in every block; none: MLP blocks only."""
    mlp: str = "relu"
    """MLP of every block: none, relu, erf or gelu."""
    embedding: bool = True
    """A dense layer on every token first."""
    bias: float = 0.0
    """Standard deviation of the bias of every dense layer."""
    positions: float = 0.0
    """Standard deviation of the position embeddings; 0 for none."""
    residual: bool = False
    """Residual connections around attention and MLP."""
    layer_norm: str = "none"
    """none, pre or post."""
    readout: str = "flatten"
    """flatten, mean or last (token)."""

    def architecture(self) -> Architecture:
        """The network without d; ValueError for values that describe none."""
        names = [f.name for f in fields(Architecture)]
        return Architecture(**{name: getattr(self, name) for name in names})
