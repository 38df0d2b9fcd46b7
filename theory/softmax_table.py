"""Proposition 3.1 for softmax attention: the table, and what `python -m theory softmax` prints."""

from __future__ import annotations

from collections.abc import Callable

from .architecture import Architecture
from .digits import steady
from .softmax_verdict import SoftmaxVerdict, softmax_cube, softmax_verdicts

CASES: tuple[tuple[str, Architecture, int], ...] = (
    ("softmax, T = 1", Architecture(mlp="relu", depth=2), 6),
    ("softmax attention alone", Architecture(tokens=3, embedding=False), 6),
    ("softmax + ReLU", Architecture(tokens=2, mlp="relu"), 6),
    ("softmax + ReLU", Architecture(tokens=3, mlp="relu"), 6),
    ("softmax + ReLU, T = d", Architecture(tokens=6, mlp="relu"), 6),
    ("softmax + ReLU, positions", Architecture(tokens=3, mlp="relu", positions=1.0), 6),
    (
        "softmax + LayerNorm, residual",
        Architecture(tokens=3, mlp="relu", positions=1.0, residual=True, layer_norm="post"),
        6,
    ),
    ("softmax, mean pool", Architecture(tokens=3, mlp="relu", readout="mean"), 6),
    ("softmax, last token", Architecture(tokens=3, mlp="relu", readout="last", positions=1.0), 6),
)
DRAWS = 256

_HEADER = (
    "| case | network | d | kernel | K = Psi(<x,y>) | Walsh eigenfunctions | order along chains "
    "| order of degree averages | trace-weighted degree, softmax / linear | bias to low degree |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)


def softmax_table(progress: Callable[[str], None] = lambda _: None) -> str:
    """The domain of validity for softmax attention, in Markdown."""
    out = [_HEADER]
    for name, architecture, d in CASES:
        progress(name)
        cubes = softmax_cube(architecture, d, draws=DRAWS)
        for v in softmax_verdicts(architecture, d, cubes):
            cells = [name, label(architecture), str(d), v.kernel, *parts(v)]
            degrees = f"{v.trace_weighted_degree} / {steady(v.linear_degree, 3)}"
            out.append("| " + " | ".join([*cells, degrees, v.bias]) + " |\n")
    return "".join(out)


def label(architecture: Architecture) -> str:
    """The network's label, with softmax attention in place of linear."""
    return str(architecture).replace("linear attention", "softmax attention")


def parts(v: SoftmaxVerdict) -> list[str]:
    """Each part of the proposition: yes, no or undecided, and by how much."""
    spread, off = v.spread, v.off_diagonal
    return [
        "yes" if spread.zero == "yes" else f"{spread.zero}, spread {spread}",
        "yes" if off.zero == "yes" else f"{off.zero}, {off} off the diagonal",
        str(v.chain),
        str(v.degree),
    ]


def report(architecture: Architecture, d: int, verdicts: tuple[SoftmaxVerdict, ...]) -> list[str]:
    """What `python -m theory softmax` prints."""
    lines = [f"Proposition 3.1 for {label(architecture)} on {{±1}}^{d}, ± standard errors"]
    names = ("function of <x, y>", "Walsh eigenfunctions", "order along chains", "order of degrees")
    for v in verdicts:
        lines.append(f"  {v.kernel}")
        lines += [f"    {name + ':':22}{part}" for name, part in zip(names, parts(v), strict=True)]
        lines.append(
            f"    trace-weighted degree {v.trace_weighted_degree}, with linear attention "
            f"{v.linear_degree:.4g}: the bias to low degree is {v.bias} (none would be {d / 2:g})"
        )
        lines += [
            f"    degree {k}: average mu {mean:.6e} ± {stderr:.1e}"
            for k, (mean, stderr) in enumerate(v.degree_averages.T)
        ]
    return lines
