"""Groups of options that the experiments of paper B share."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from command.line import UserError
from command.options import NOT_NEGATIVE, POSITIVE, SEED, Count, Each, check_memory
from experiments.run.options import Options, Run, Seeds

Words = Annotated[tuple[str, ...], Each(least=1)]
Lengths = Annotated[tuple[int, ...], Each(least=1), Count(most=4096)]
Many = Annotated[int, Count(most=4096, why="they are trained side by side")]
Steps = Annotated[int, Count()]
Width = Annotated[int, Count(most=2**14)]
Depth = Annotated[int, Count(most=1000)]
Batch = Annotated[int, Count(most=2**24)]
Draws = Annotated[int, Count(most=10**5)]
Samples = Annotated[int, Count(least=2, most=10**7)]
Fitted = Annotated[float, POSITIVE]
# What a smoke run of all of them changes.
SMALL: Mapping[str, Any] = {
    "width": 8,
    "steps": 40,
    "every": 20,
    "save_every": 20,
    "batch_size": 32,
    "test": 64,
    "draws": 2,
    "samples": 16,
}


@dataclasses.dataclass(frozen=True)
class Functions(Options):
    """What is learned."""

    functions: Words = ("parity", "majority", "first", "mean")
    """parity, majority (a tie is 0), first, mean; random (a table drawn by --function-seed); the
    path of a .npy file with the 2^n labels of one length, all zeros first; or module:function, a
    function in JAX of points (N, n), +1 for bit 0 and -1 for bit 1, to N labels."""
    function_seed: Annotated[int, SEED] = 0
    """Seed of random functions."""
    lengths: Lengths = (4, 10, 15, 20, 25, 30)
    """Numbers of bits n."""


@dataclasses.dataclass(frozen=True)
class Sizes(Options):
    """The sizes of a transformer."""

    width: Width = 128
    """Width: half of it is the token, half the position."""
    heads: Annotated[int, Count(most=2**14)] = 2
    """Attention heads; they divide the width."""
    depth: Depth = 2
    """Blocks."""

    def check(self) -> None:
        super().check()
        if self.width % 2 or self.width % self.heads:
            raise UserError(
                f"--width must be even and a multiple of --heads ({self.heads}), got {self.width}"
            )


@dataclasses.dataclass(frozen=True)
class Network(Sizes):
    """The transformer."""

    independent: bool = False
    """Draw the initial weights of each block; the authors' blocks start as copies of one."""


@dataclasses.dataclass(frozen=True)
class Training(Options):
    """How it is trained: AdamW at a constant rate, mean squared error, fresh strings every step."""

    steps: Steps = 10000
    """Steps of training at most."""
    batch_size: Batch = 1024
    """Strings a step, drawn afresh."""
    learning_rate: Annotated[float, POSITIVE] = 3e-4
    """Step size of AdamW."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.1
    """Weight decay of AdamW, on every parameter."""
    every: Annotated[int, Count()] = 100
    """Measure the loss on fresh strings after this many steps."""
    save_every: Annotated[int, Count()] = 1000
    """Save a checkpoint after this many steps; a multiple of --every."""
    test: Annotated[int, Count(most=2**24)] = 4096
    """Strings that the loss is measured on: all 2^n, if there are no more."""
    fitted: Fitted = 1e-3
    """A run has fitted when its loss there, on labels 0 and 1, is below this."""
    stop: bool = True
    """Stop when all seeds have fitted; --no-stop trains all steps, as the paper does."""

    def check(self) -> None:
        super().check()
        self.require_multiples("every", "save_every")


@dataclasses.dataclass(frozen=True)
class Measuring(Options):
    """How the trained networks are measured."""

    noise: Annotated[float, POSITIVE] = 0.02
    """Size of the noise on the weights, all but the positions: see --noise-kind."""
    noise_kind: Literal["std", "norm", "sphere"] = "std"
    """--noise is the standard deviation (std), the norm on average, so that the standard deviation
    is noise / sqrt(parameters) (norm), or the norm exactly (sphere)."""
    draws: Draws = 10
    """Draws of the noise for each batch of strings."""
    batches: Draws = 16
    """Batches of 2^8 strings, subcubes, that sharpness is measured on (the whole cube to n = 8)."""
    reuse_draws: bool = False
    """The same draws for all batches, as the authors' code has it; not fresh ones for each."""
    exact: Annotated[int, Count(least=0, most=20, why="all 2^n strings are evaluated")] = 16
    """Average sensitivity is exact, from all 2^n strings, up to this many bits; sampled above."""
    samples: Samples = 1000
    """Strings that it is sampled on, and that sensitivity and blow-up are compared on."""


@dataclasses.dataclass(frozen=True)
class Trained(Run, Seeds, Network, Training, Measuring):
    """All options of an experiment that trains the transformer and measures it at the end."""

    SMALLEST: ClassVar[Mapping[str, Any]] = {**SMALL, "batches": 2}

    def check_lengths(self, lengths: tuple[int, ...]) -> None:
        """Raise UserError where a batch of strings, or its networks, take too much memory."""
        longest = max(lengths)
        strings = max(self.batch_size, 500)
        check_memory(
            48.0 * self.seeds * strings * longest * self.width,
            "--batch-size",
            self.batch_size,
            f"strings of {longest} bits at --width {self.width} and --seeds {self.seeds}",
        )
