"""Spectra of CK and NTK on the Boolean cube, and Proposition 3.1 put to the test.

python -m theory check --d 8 --tokens 4 --readout mean --mlp relu
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import mpmath
import numpy as np
import tyro

from command import line as cli
from command.files import write_whole

from .dot_product import MAX_DIMENSION, DegreeSpectrum, dot_product_spectrum
from .options import Network
from .propositions import KernelVerdict, Verdict31, check_one_token, verdict_of_rows
from .reports import columns_report, curves_report
from .softmax_table import report as softmax_report
from .softmax_table import softmax_table
from .softmax_verdict import softmax_cube, softmax_verdicts
from .spectrum import Spectrum, architecture_rows, spectra_of_rows
from .survivors import survivors
from .table import domain_of_validity
from .table_next import curves_table, large_d_table


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
            _print_degrees(self.d, dot_product_spectrum(architecture, self.d))
            return
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")
        rows = architecture_rows(architecture, self.d, _progress())
        spectra = spectra_of_rows(architecture, rows, _progress())
        for name, spectrum in zip(("CK", "NTK"), spectra, strict=True):
            _print_blocks(name, spectrum, self.top)


@dataclass(frozen=True)
class CheckCommand(Network):
    """Proposition 3.1 for one network: the parts that hold and fail, by how much, a witness."""

    def run(self) -> None:
        """Print the verdict."""
        architecture = self.architecture()
        if architecture.tokens == 1 and self.d > 12:
            verdict = check_one_token(architecture, self.d)
            print("\n".join(_report(verdict)))
            for kernel in (verdict.ck, verdict.ntk):
                print(_one_token_bias(kernel, self.d))
            return
        rows = architecture_rows(architecture, self.d, _progress())
        verdict = verdict_of_rows(architecture, self.d, rows)
        print("\n".join(_report(verdict)))
        spectra = spectra_of_rows(architecture, rows, _progress())
        for name, spectrum in zip(("CK", "NTK"), spectra, strict=True):
            left = survivors(spectrum)
            even, odd = (
                "undefined (ties)" if value != value else f"{value:.3f}"
                for value in left.variance_correlation
            )
            print(
                f"aggregate bias, {name}: trace-weighted degree {left.trace_weighted_degree:.3f} "
                f"(no bias: {self.d / 2:g}); correlation of the ranks of -log eigenvalue and mean "
                f"degree, weighted by the eigenvalues, {even} (even), {odd} (odd)"
            )


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
        print("\n".join(columns_report(self.architecture(), self.d, self.top, _report)))


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
            progress=lambda line: print(line, file=sys.stderr, flush=True),
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
class TableCommand:
    """The domain of validity of Proposition 3.1, in Markdown, computed case by case."""

    out: Path | None = None
    """File to write; the table goes to the terminal when absent."""

    def run(self) -> None:
        """Compute and write the table."""

        def progress(case: str) -> None:
            print(f"{case} ...", file=sys.stderr, flush=True)

        tables = (domain_of_validity, softmax_table, large_d_table, curves_table)
        text = "\n".join(table(progress) for table in tables)
        if self.out is None:
            print(text, end="")
        else:
            write_whole(self.out, text.encode())


@dataclass(frozen=True)
class FiguresCommand:
    """Draw the figures of the theory; minutes on two CPU cores."""

    out: Path = Path("figures")
    """Folder for the PNG files."""

    def run(self) -> None:
        """Draw each figure into memory, then write it whole."""
        from .figures import FIGURES
        from .figures_next import FIGURES as NEXT

        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out must be a folder, got the file {self.out}")
        self.out.mkdir(parents=True, exist_ok=True)
        for name, draw in (FIGURES | NEXT).items():
            print(f"{name} ...", file=sys.stderr, flush=True)
            path = self.out / f"{name}.png"
            write_whole(path, draw())
            print(path)


def _scientific(mantissa: float, exponent: int) -> str:
    """mantissa 2^exponent in decimal, whatever its size."""
    if mantissa == 0:
        return "0"
    if -1000 < exponent < 1000:
        return f"{math.ldexp(mantissa, exponent):.6e}"
    with mpmath.workdps(30 + exponent.bit_length()):
        logarithm = mpmath.log10(mpmath.ldexp(abs(mantissa), exponent))
        power = int(mpmath.floor(logarithm))
        sign = "-" if mantissa < 0 else ""
        return f"{sign}{float(mpmath.mpf(10) ** (logarithm - power)):.6f}e{power:+03d}"


def _print_degrees(d: int, spectra: tuple[DegreeSpectrum, DegreeSpectrum]) -> None:
    print(f"{'degree':>6}  {'CK mu_k':>15} {'% of trace':>10}  {'NTK mu_k':>15} {'% of trace':>10}")
    shares = [100 * s.variance / s.variance.sum() for s in spectra]
    for k in range(d + 1):
        cells = [
            f"{_scientific(s.mantissa[k], int(s.exponent[k]) + s.shift):>15} {share[k]:10.4f}"
            for s, share in zip(spectra, shares, strict=True)
        ]
        print(f"{k:6d}  " + "  ".join(cells))


def _print_blocks(name: str, spectrum: Spectrum, top: int) -> None:
    mean_degree = spectrum.mean_degree
    print(f"{name}: {'eigenvalue':>13} {'copies':>6} {'mean degree':>11}")
    for value, copies, degree in list(
        zip(spectrum.eigenvalues, spectrum.multiplicity, mean_degree, strict=True)
    )[:top]:
        shown = _scientific(value, spectrum.exponent)
        print(f"{'':{len(name) + 1}} {shown:>13} {copies:6d} {degree:11.4f}")
    share = 100 * spectrum.variance / spectrum.variance.sum()
    print(f"{name}: degree, average of E[chi_U K chi_U] over |U| = degree, % of trace")
    for k, (mu, part) in enumerate(zip(spectrum.degree_averages, share, strict=True)):
        print(f"{k:6d}  {_scientific(mu, spectrum.exponent):>13} {part:10.4f}")


def _report(verdict: Verdict31) -> list[str]:
    head = verdict.status if verdict.status != "undecided" else "is undecided"
    lines = [f"Proposition 3.1 {head} for {verdict.architecture} on {{±1}}^{verdict.d}"]
    if verdict.ck.proof:
        lines.append(f"  proved; {verdict.ck.proof}")
    for kernel in (verdict.ck, verdict.ntk):
        lines += [f"  {kernel.kernel}", *(f"    {line}" for line in _parts(kernel, verdict.d))]
    lines.append(f"tolerance {verdict.tolerance:g}, relative: {verdict.reason}")
    return lines


def _parts(kernel: KernelVerdict, d: int) -> list[str]:
    def signs(index: int) -> str:
        return "".join("-" if index >> (d - 1 - i) & 1 else "+" for i in range(d))

    (x, y), (u, v) = kernel.spread_pairs
    no = (
        f"K differs by {kernel.spread:.3g} of max |K| between the pairs "
        f"({signs(x)}, {signs(y)}) and ({signs(u)}, {signs(v)}) of equal <x, y>",
        f"{kernel.off_diagonal:.3g} of the Frobenius norm is off the Walsh diagonal",
        *(
            f"{worst}{note} (by {worst.excess:.3g} of the largest)" if worst else ""
            for worst, note in ((kernel.chain, ""), (kernel.degree, " (degrees)"))
        ),
    )
    found = (kernel.spread, kernel.off_diagonal, kernel.chain_excess, kernel.degree_excess)
    names = (
        "function of <x, y>:      ",
        "Walsh eigenfunctions:    ",
        "order along chains:      ",
        "order of degree averages: ",
    )
    lines = []
    for name, status, why, value in zip(names, kernel.parts, no, found, strict=True):
        said = {"yes": "yes", "no": f"NO, {why}"}.get(
            status,
            f"undecided: {value:.1g} found, and "
            + (
                f"K varies by {kernel.content:.1g} of its largest value"
                if kernel.content
                else "a bias or positions beyond what float64 can tell"
            ),
        )
        lines.append(name + said)
    return lines


def _one_token_bias(kernel: KernelVerdict, d: int) -> str:
    if not kernel.degree_averages:
        return f"{kernel.kernel}: eigenvalues are not computed beyond d = {MAX_DIMENSION}"
    return f"{kernel.kernel}: python -m theory spectrum --d {d} lists the eigenvalues by degree"


def _progress() -> Callable[[str], None]:
    """Say on standard error what is being done, once it has taken five seconds."""
    begun = time.monotonic()
    said = [begun]

    def progress(text: str) -> None:
        now = time.monotonic()
        if now - begun > 5 and now - said[0] > 5:
            said[0] = now
            print(f"{text} ({now - begun:.0f} s)", file=sys.stderr, flush=True)

    return progress


Command = (
    Annotated[SpectrumCommand, tyro.conf.subcommand("spectrum")]
    | Annotated[CheckCommand, tyro.conf.subcommand("check")]
    | Annotated[ColumnsCommand, tyro.conf.subcommand("columns")]
    | Annotated[SoftmaxCommand, tyro.conf.subcommand("softmax")]
    | Annotated[CurvesCommand, tyro.conf.subcommand("curves")]
    | Annotated[TableCommand, tyro.conf.subcommand("table")]
    | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
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
