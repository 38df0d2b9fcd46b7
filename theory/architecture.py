"""What is being analysed: one description of a network, read by every kernel in this package."""

from __future__ import annotations

from dataclasses import dataclass

ATTENTION = ("linear", "none")
MLP = ("none", "relu", "erf", "gelu")
LAYER_NORM = ("none", "pre", "post")
READOUT = ("flatten", "mean", "last")


@dataclass(frozen=True)
class Architecture:
    r"""A stack of blocks on x in {±1}^d, read row-major as T tokens of p = d/T bits.

    `Dense` is W z + b with W_ij ~ N(0, 1/fan_in), b_i ~ N(0, bias²), drawn afresh each time it
    occurs and shared by the tokens; `phi` is the activation `mlp`; hidden widths and the number of
    heads go to infinity. All parameters are trained, in the NTK parameterisation. With z_a the
    vector of token a, the network is, in this order:

    1. z_a = x_a, the p raw bits; `embedding`: z_a = Dense(x_a).
    2. `positions` > 0: z_a += P_a, P_a ~ N(0, positions² I) independent for each position, trained.
    3. `depth` blocks. A block is the attention sublayer (unless attention="none") and then the MLP
       sublayer (unless mlp="none"); each sublayer F enters as

       - layer_norm="none":  z <- F(z)             or with `residual`  z <- z + F(z)
       - layer_norm="pre":   z <- F(LN(z))         or with `residual`  z <- z + F(LN(z))
       - layer_norm="post":  z <- LN(F(z))         or with `residual`  z <- LN(z + F(z))

       Attention, heads h = 1..H, no bias, no softmax, query and key independent, scaling
       (head width)^(-1/2), every W_ij ~ N(0, 1/fan_in):
           F(z)_a = W_O concat_h sum_b [<W_Q^h z_a, W_K^h z_b> / sqrt(head width)] W_V^h z_b
       MLP: F(z)_a = Dense(phi(Dense(z_a))). In the plain MLP (`plain_mlp`: no attention, residual
       or LayerNorm) the closing Dense is left out, F(z)_a = phi(Dense(z_a)): `depth` is then the
       number of hidden layers, as everyone counts them.
       LN normalises each token over its channels to mean 0 and variance 1: no epsilon, no gain,
       no shift.
    4. layer_norm="pre": one last z <- LN(z).
    5. The readout, a scalar: f(x) = Dense(concat_a z_a) ("flatten": fan_in counts all tokens),
       Dense(mean_a z_a) ("mean") or Dense(z_T) ("last").

    The CK (or NNGP kernel) is E[f(x) f(y)] over the parameters, the NTK is
    E[<grad f(x), grad f(y)>]. Input layer: the kernel of raw tokens is <x_a, y_b> / p.
    Note that ReLU is not rescaled: each ReLU layer halves the variance, and an attention layer at
    T tokens of unit variance multiplies it by up to T².

    `bias` and `positions` are standard deviations. Softmax attention with this scaling has no
    closed form (paper section 3 and Hron et al. 2020 take linear attention for that reason);
    `theory.softmax` has its kernels by quasi-Monte Carlo.

    Raises ValueError or TypeError at construction for a description that has no such limit.
    """

    tokens: int = 1
    depth: int = 1
    attention: str = "linear"  # "linear" | "none"
    mlp: str = "none"  # "none" | "relu" | "erf" | "gelu"
    embedding: bool = True
    bias: float = 0.0  # standard deviation of every Dense bias
    positions: float = 0.0  # standard deviation of the position embeddings, 0 for none
    residual: bool = False
    layer_norm: str = "none"  # "none" | "pre" | "post"
    readout: str = "flatten"  # "flatten" | "mean" | "last"

    def __post_init__(self) -> None:
        for name in ("tokens", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("embedding", "residual"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be True or False, got {value!r}")
        for name in ("bias", "positions"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a standard deviation, got {value!r}")
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} is a standard deviation, finite and >= 0, got {value}")
        if isinstance(self.attention, str) and self.attention.lower() == "softmax":
            raise ValueError(
                "softmax attention with (head width)^-1/2 scaling has no closed-form kernel; "
                "use attention='linear', or theory.softmax for its kernels by quasi-Monte Carlo"
            )
        for name, known in (
            ("attention", ATTENTION),
            ("mlp", MLP),
            ("layer_norm", LAYER_NORM),
            ("readout", READOUT),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}: expected one of {', '.join(known)}")
        if self.attention == "none" and self.mlp == "none":
            raise ValueError("attention='none' with mlp='none' leaves empty blocks: choose an mlp")
        if not self.embedding:
            needs = {
                "residual=True": self.residual,
                "positions > 0": self.positions > 0,
                "layer_norm='pre'": self.layer_norm == "pre",
            }
            for what, asked in needs.items():
                if asked:
                    raise ValueError(
                        f"{what} acts on the token embeddings: it needs embedding=True "
                        "(raw tokens have d/T channels and no infinite-width limit)"
                    )

    @property
    def plain_mlp(self) -> bool:
        """True for an MLP without residual or LayerNorm: its hidden layers are phi(Dense(z))."""
        return self.attention == "none" and not self.residual and self.layer_norm == "none"

    def check(self, d: int) -> int:
        """The number of bits p = d/T of a token; ValueError unless T divides d."""
        if isinstance(d, bool) or not isinstance(d, int):
            raise TypeError(f"d must be an int, got {d!r}")
        if d < 1 or d % self.tokens:
            raise ValueError(
                f"d must be a positive multiple of the number of tokens, got d = {d}, "
                f"tokens = {self.tokens}"
            )
        return d // self.tokens

    def __str__(self) -> str:
        """A short label: what is on, in the order in which it acts."""
        block = [self.attention + " attention"] if self.attention != "none" else []
        block += [self.mlp] if self.mlp != "none" else []
        parts = [f"T={self.tokens}", f"{self.depth} x [{' + '.join(block)}]"]
        parts += [] if self.embedding else ["no embedding"]
        parts += [f"bias {self.bias:g}"] if self.bias else []
        parts += [f"positions {self.positions:g}"] if self.positions else []
        parts += ["residual"] if self.residual else []
        parts += [f"{self.layer_norm}-LN"] if self.layer_norm != "none" else []
        return ", ".join([*parts, self.readout])
