"""Where Proposition 3.1 holds: the table, computed case by case."""

from __future__ import annotations

from collections.abc import Callable

from .architecture import Architecture
from .digits import decimals, steady
from .propositions import verdict_of_rows
from .spectrum import architecture_rows, spectra_of_rows
from .survivors import survivors
from .verdict import KernelVerdict

_RAW = {"embedding": False}

# (what the case shows, architecture, d); the first of several in a case is its smallest instance.
CASES: tuple[tuple[str, Architecture, int], ...] = (
    ("T = 1", Architecture(mlp="relu", depth=2), 8),
    (
        "T = 1, every option",
        Architecture(mlp="gelu", depth=2, bias=0.3, positions=0.5, residual=True, layer_norm="pre"),
        8,
    ),
    ("MLP", Architecture(attention="none", mlp="relu", depth=4), 8),
    ("T = d, flattened, odd", Architecture(tokens=8, mlp="erf", positions=0.5), 8),
    ("T = d, flattened, odd, then ReLU", Architecture(tokens=8, mlp="relu"), 8),
    ("T = d, flattened, bias", Architecture(tokens=8, mlp="relu", bias=0.5), 8),
    ("T = d, flattened, ReLU before", Architecture(tokens=6, mlp="relu", depth=2, **_RAW), 6),
    ("T = d, last token, odd", Architecture(tokens=8, mlp="erf", positions=0.5, readout="last"), 8),
    ("attention alone (by hand)", Architecture(tokens=2, **_RAW), 4),
    ("attention + ReLU (by hand)", Architecture(tokens=2, mlp="relu", **_RAW), 4),
    ("three attention layers", Architecture(tokens=3, depth=3, **_RAW), 6),
    ("embedding, positions, attention", Architecture(tokens=2, positions=1.0), 8),
    ("attention + erf", Architecture(tokens=2, mlp="erf"), 8),
    ("attention + ReLU", Architecture(tokens=2, mlp="relu"), 8),
    ("two ReLU blocks", Architecture(tokens=4, mlp="relu", depth=2), 8),
    (
        "attention + LayerNorm, d = 4",
        Architecture(tokens=2, layer_norm="post", residual=True),
        4,
    ),
    ("attention + LayerNorm", Architecture(tokens=3, layer_norm="post", residual=True), 6),
    ("mean pool, no positions", Architecture(tokens=4, mlp="relu", readout="mean"), 8),
    ("mean pool, positions", Architecture(tokens=4, mlp="relu", readout="mean", positions=1.0), 8),
    ("last token (by hand)", Architecture(tokens=2, readout="last", **_RAW), 4),
    ("last token, positions", Architecture(tokens=2, mlp="relu", readout="last", positions=1.0), 8),
)

_HEADER = (
    "| case | network | d | kernel | K = Psi(<x,y>) | Walsh eigenfunctions | order along chains "
    "| order of degree averages | trace-weighted degree | weighted correlation even / odd |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def domain_of_validity(progress: Callable[[str], None] = lambda _: None) -> str:
    """The table in Markdown; `progress` is told the name of each case before it is computed."""
    out = [_HEADER]
    for name, architecture, d in CASES:
        progress(name)
        rows = architecture_rows(architecture, d)
        verdict = verdict_of_rows(architecture, d, rows)
        spectra = spectra_of_rows(architecture, rows)
        for kernel, spectrum in zip((verdict.ck, verdict.ntk), spectra, strict=True):
            rest = survivors(spectrum)
            even, odd = (
                "-" if value != value else decimals(value, 2) for value in rest.variance_correlation
            )
            cells = [name, str(architecture), str(d), kernel.kernel, *_parts(kernel)]
            cells.append(decimals(rest.trace_weighted_degree, 2))
            out.append("| " + " | ".join([*cells, f"{even} / {odd}"]) + " |\n")
    return "".join(out)


def _parts(kernel: KernelVerdict) -> list[str]:
    no = (
        f"spread {steady(kernel.spread, 2)}",
        f"{steady(kernel.off_diagonal, 2)} off the diagonal",
        str(kernel.chain),
        str(kernel.degree),
    )
    return [
        f"no, {why}" if status == "no" else status
        for status, why in zip(kernel.parts, no, strict=True)
    ]
