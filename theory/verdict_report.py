"""What `python -m theory check` and `spectrum` print."""

from __future__ import annotations

from .digits import scientific
from .dot_product import MAX_DIMENSION, DegreeSpectrum
from .spectrum import Spectrum
from .survivors import survivors
from .verdict import KernelVerdict, Verdict31


def degree_lines(d: int, spectra: tuple[DegreeSpectrum, DegreeSpectrum]) -> list[str]:
    """The eigenvalues of CK and NTK by degree, T = 1."""
    lines = [
        f"{'degree':>6}  {'CK mu_k':>15} {'% of trace':>10}  {'NTK mu_k':>15} {'% of trace':>10}"
    ]
    shares = [100 * s.variance / s.variance.sum() for s in spectra]
    for k in range(d + 1):
        cells = [
            f"{scientific(s.mantissa[k], int(s.exponent[k]) + s.shift):>15} {share[k]:10.4f}"
            for s, share in zip(spectra, shares, strict=True)
        ]
        lines.append(f"{k:6d}  " + "  ".join(cells))
    return lines


def block_lines(name: str, spectrum: Spectrum, top: int) -> list[str]:
    """The `top` largest distinct eigenvalues of one kernel, and its forms by degree."""
    lines = [f"{name}: {'eigenvalue':>13} {'copies':>6} {'mean degree':>11}"]
    for value, copies, degree in list(
        zip(spectrum.eigenvalues, spectrum.multiplicity, spectrum.mean_degree, strict=True)
    )[:top]:
        shown = scientific(value, spectrum.exponent)
        lines.append(f"{'':{len(name) + 1}} {shown:>13} {copies:6d} {degree:11.4f}")
    share = 100 * spectrum.variance / spectrum.variance.sum()
    lines.append(f"{name}: degree, average of E[chi_U K chi_U] over |U| = degree, % of trace")
    for k, (mu, part) in enumerate(zip(spectrum.degree_averages, share, strict=True)):
        lines.append(f"{k:6d}  {scientific(mu, spectrum.exponent):>13} {part:10.4f}")
    return lines


def bias_line(name: str, spectrum: Spectrum) -> str:
    """The bias to low degree that is left, in one line."""
    left = survivors(spectrum)
    even, odd = (
        "undefined (ties)" if value != value else f"{value:.3f}"
        for value in left.variance_correlation
    )
    return (
        f"aggregate bias, {name}: trace-weighted degree {left.trace_weighted_degree:.3f} "
        f"(no bias: {spectrum.d / 2:g}); correlation of the ranks of -log eigenvalue and mean "
        f"degree, weighted by the eigenvalues, {even} (even), {odd} (odd)"
    )


def verdict_lines(verdict: Verdict31) -> list[str]:
    """The verdict, part by part, with a witness for what fails."""
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


def one_token_line(kernel: KernelVerdict, d: int) -> str:
    """Where the eigenvalues of a one-token kernel are listed."""
    if not kernel.degree_averages:
        return f"{kernel.kernel}: eigenvalues are not computed beyond d = {MAX_DIMENSION}"
    return f"{kernel.kernel}: python -m theory spectrum --d {d} lists the eigenvalues by degree"
