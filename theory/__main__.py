"""Spectra of CK and NTK on the Boolean cube, and Proposition 3.1 put to the test.

python -m theory check --d 8 --tokens 4 --readout mean --mlp relu
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from command import line as cli
from command.files import write_whole
from command.streams import say

from . import benchmark
from .dot_product import dot_product_spectrum
from .options import Network
from .progress import Progress
from .propositions import check_one_token, verdict_of_rows
from .reports import columns_report, curves_report
from .softmax_table import report as softmax_report
from .softmax_table import softmax_table
from .softmax_verdict import softmax_cube, softmax_verdicts
from .spectrum import architecture_rows, spectra_of_rows
from .table import domain_of_validity
from .table_next import curves_table, large_d_table
from .verdict_report import bias_line, block_lines, degree_lines, one_token_line, verdict_lines


@dataclass(frozen=True)
class SpectrumCommand(Network):
    """Eigenvalues of the CK and the NTK: by degree for T = 1 (d to 4096), else through blocks."""

    top: int = 12
    """For T > 1: how many distinct eigenvalues to list."""

    def run(self) -> None:
        """Print the table."""
        architecture = self.architecture()
        print(f"{architecture}, d = {self.d}")
        if architecture.tokens == 1:
            print("\n".join(degree_lines(self.d, dot_product_spectrum(architecture, self.d))))
            return
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")
        said = Progress()
        rows = architecture_rows(architecture, self.d, said)
        spectra = spectra_of_rows(architecture, rows, said)
        for name, spectrum in zip(("CK", "NTK"), spectra, strict=True):
            print("\n".join(block_lines(name, spectrum, self.top)))


@dataclass(frozen=True)
class CheckCommand(Network):
    """Proposition 3.1 for one network: the parts that hold and fail, by how much, a witness."""

    def run(self) -> None:
        """Print the verdict."""
        architecture = self.architecture()
        if architecture.tokens == 1 and self.d > 12:
            verdict = check_one_token(architecture, self.d)
            print("\n".join(verdict_lines(verdict)))
            for kernel in (verdict.ck, verdict.ntk):
                print(one_token_line(kernel, self.d))
            return
        said = Progress()
        rows = architecture_rows(architecture, self.d, said)
        print("\n".join(verdict_lines(verdict_of_rows(architecture, self.d, rows))))
        spectra = spectra_of_rows(architecture, rows, said)
        for name, spectrum in zip(("CK", "NTK"), spectra, strict=True):
            print(bias_line(name, spectrum))


@dataclass(frozen=True)
class ColumnsCommand(Network):
    """Several tokens at large d: the proposition and the spectrum, exactly (2 tokens to d = 72;
    one linear attention layer without MLP: any d, up to 8 tokens)."""

    d: int = 64
    """Number of bits; `tokens` must divide it."""
    tokens: int = 2
    """Number of tokens T; each is d/T consecutive bits."""
    top: int = 12
    """How many eigenvalues to list."""

    def run(self) -> None:
        """Print the verdict and the largest eigenvalues."""
        print("\n".join(columns_report(self.architecture(), self.d, self.top)))


@dataclass(frozen=True)
class SoftmaxCommand(Network):
    """Softmax in place of linear attention: Proposition 3.1 with error bars, d <= 9."""

    d: int = 6
    """Number of bits; `tokens` must divide it."""
    tokens: int = 2
    """Number of tokens T, at most 8."""
    draws: int = 512
    """Quasi-random heads in each randomisation, a power of two."""
    randomisations: int = 8
    """Independent scramblings, for the error bars."""
    seed: int = 0
    """Seed of the scramblings."""

    def run(self) -> None:
        """Print the verdict."""
        architecture = self.architecture()
        cubes = softmax_cube(
            architecture,
            self.d,
            draws=self.draws,
            randomisations=self.randomisations,
            seed=self.seed,
            progress=say,
        )
        verdicts = softmax_verdicts(architecture, self.d, cubes)
        print("\n".join(softmax_report(architecture, self.d, verdicts)))


@dataclass(frozen=True)
class CurvesCommand(Network):
    """Learning curves from the spectrum: test error by degree of the target against samples."""

    d: int = 1024
    """Number of bits: to 4096 for one token, 72 for two, 14 for more."""
    degrees: int = 3
    """Largest degree of the target."""
    samples: tuple[float, ...] = (10, 100, 1000, 10_000, 100_000, 1_000_000)
    """Sample sizes."""
    ridge: float = 0.0
    """Added to the kernel matrix of the samples."""
    noise: float = 0.0
    """Standard deviation of the noise on labels."""

    def run(self) -> None:
        """Print the curves of CK and NTK."""
        lines = curves_report(
            self.architecture(), self.d, self.degrees, self.samples, self.ridge, self.noise
        )
        print("\n".join(lines))


@dataclass(frozen=True)
class NoiseCommand:
    """Proposition 3.2 and the bound by average sensitivity: named functions, random networks, and
    networks that learn a sparse parity, in Markdown."""

    rho: float = 0.9
    """Correlation of x and x', in [0, 1]."""
    draws: int = 24
    """Random networks of each family."""
    seeds: int = 3
    """Networks of each family to train."""

    def run(self) -> None:
        """Draw and train, then print the table."""
        for name in ("draws", "seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        from .noise_table import noise_table

        print(noise_table(self.rho, self.draws, self.seeds, _say), end="")


@dataclass(frozen=True)
class TableCommand:
    """The domain of validity of Proposition 3.1, in Markdown, computed case by case."""

    out: Path | None = None
    """File to write; the table goes to the terminal when absent."""

    def run(self) -> None:
        """Compute and write the table."""
        from .noise_table import exact_table

        if self.out is not None and self.out.is_dir():
            raise ValueError(f"out must be a file, got the folder {self.out}")
        if self.out is not None and self.out.parent.exists() and not self.out.parent.is_dir():
            raise ValueError(f"out must lie in a folder, got the file {self.out.parent}")
        tables = (domain_of_validity, exact_table, softmax_table, large_d_table, curves_table)
        text = "\n".join(table(_say) for table in tables)
        if self.out is None:
            print(text, end="")
        else:
            write_whole(self.out, text.encode())


@dataclass(frozen=True)
class BenchmarkCommand(benchmark.Config):
    """Accuracy and seconds of the spectrum of a dot-product kernel, beside simpler methods."""

    def run(self) -> None:
        """Compute, compare, print a table."""
        benchmark.main(self)


@dataclass(frozen=True)
class FiguresCommand:
    """Draw the figures of the theory; minutes on two CPU cores."""

    out: Path = Path("figures")
    """Folder for the PNG files."""

    def run(self) -> None:
        """Draw each figure into memory, then write it whole."""
        from . import figures, figures_curves, figures_next, figures_noise

        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out must be a folder, got the file {self.out}")
        self.out.mkdir(parents=True, exist_ok=True)
        every = figures.FIGURES | figures_noise.FIGURES
        every |= figures_next.FIGURES | figures_curves.FIGURES
        for number, (name, draw) in enumerate(every.items(), 1):
            _say(f"{name}, {number} of {len(every)}")
            path = self.out / f"{name}.png"
            write_whole(path, draw())
            print(path)


def _say(case: str) -> None:
    say(f"{case} ...")


Command = (
    Annotated[SpectrumCommand, tyro.conf.subcommand("spectrum")]
    | Annotated[CheckCommand, tyro.conf.subcommand("check")]
    | Annotated[ColumnsCommand, tyro.conf.subcommand("columns")]
    | Annotated[SoftmaxCommand, tyro.conf.subcommand("softmax")]
    | Annotated[CurvesCommand, tyro.conf.subcommand("curves")]
    | Annotated[NoiseCommand, tyro.conf.subcommand("noise")]
    | Annotated[TableCommand, tyro.conf.subcommand("table")]
    | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
    | Annotated[BenchmarkCommand, tyro.conf.subcommand("benchmark")]
)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; what the user can put right is one line and exit code 2."""
    cli.run(_run, Command, prog="theory", args=arguments)


def _run(command: Command) -> None:
    try:
        with np.errstate(all="ignore"):
            command.run()
    except (
        ValueError,
        TypeError,
        ArithmeticError,
    ) as error:  # the theory's own words for what it cannot compute
        raise cli.UserError(str(error)) from None


if __name__ == "__main__":
    main()
