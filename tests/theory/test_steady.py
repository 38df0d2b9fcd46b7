"""What is printed does not change with the last digits of what is computed, nor with threads."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from theory import (
    columns,
    progress,
    softmax,
    softmax_table,
    softmax_verdict,
    symmetry,
    table,
    table_next,
)
from theory.architecture import Architecture
from theory.digits import decimals, scientific, steady
from theory.noise_table import exact_table

ROOT = Path(__file__).parents[2]


def test_a_tie_goes_one_way():
    for value in (0.125, 0.375, 2.5, 0.0009765625, 1 / 3):
        near = [value * (1 + e) for e in (-3e-15, 0.0, 3e-15)]
        for digits in (1, 2, 3, 6):
            assert len({steady(v, digits) for v in near}) == 1
            assert float(steady(value, digits)) == pytest.approx(value, rel=10.0**-digits * 5)
        assert len({decimals(v, 2) for v in near}) == 1
    assert decimals(-1e-12, 2) == "0.00"
    assert scientific(0.5, 4) == "8.000000e+00"
    assert scientific(1.0, 4000).startswith("1.318204e+1204")


def noisy(monkeypatch, seed, size):
    """Every kernel value off by a few units in its last place, as another summation would give."""
    rng = np.random.default_rng(seed)

    def shaken(values):
        return values * (1 + size * rng.standard_normal(np.shape(values)))

    plain, grams, factor = symmetry.scaled_ck_ntk, columns.ck_ntk_of_grams, softmax.factor
    sampled = softmax_verdict.softmax_ck_ntk

    def scaled(*arguments):
        found = plain(*arguments)
        return type(found)(
            shaken(found.ck), shaken(found.ntk), found.ck_exponent, found.ntk_exponent
        )

    def of_grams(*arguments):
        return tuple(shaken(k) for k in grams(*arguments))

    def of_gram(gram):
        gram = shaken(gram)
        return factor((gram + gram.T) / 2)

    def of_samples(*arguments, **options):
        return tuple(shaken(k) for k in sampled(*arguments, **options))

    monkeypatch.setattr(symmetry, "scaled_ck_ntk", scaled)
    monkeypatch.setattr(columns, "ck_ntk_of_grams", of_grams)
    monkeypatch.setattr(softmax, "factor", of_gram)
    monkeypatch.setattr(softmax_verdict, "softmax_ck_ntk", of_samples)


def tables():
    return [
        table.domain_of_validity(),
        exact_table(),
        softmax_table.softmax_table(),
        table_next.large_d_table(),
        table_next.curves_table(),
    ]


def test_small_tables_do_not_show_rounding(monkeypatch):
    few = ("T = d, flattened, bias", "attention + ReLU (by hand)", "last token (by hand)")
    monkeypatch.setattr(table, "CASES", [c for c in table.CASES if c[0] in few])
    monkeypatch.setattr(softmax_table, "CASES", [("", Architecture(tokens=2, mlp="relu"), 4)])
    monkeypatch.setattr(softmax_table, "DRAWS", 16)
    monkeypatch.setattr(table_next, "LARGE", [(table_next.LARGE[0][0], (12,))])
    monkeypatch.setattr(table_next, "CURVES", [(table_next.CURVES[2][0], (8,))])
    before = tables()
    noisy(monkeypatch, 0, 4e-16)
    assert tables() == before


@pytest.mark.slow
def test_no_table_shows_rounding(monkeypatch):
    before = tables()
    noisy(monkeypatch, 1, 4e-16)
    assert tables() == before


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_tables_of_the_page_are_what_the_command_prints(threads, tmp_path):
    settings = {f"{name}_NUM_THREADS": threads for name in ("OMP", "OPENBLAS", "MKL")}
    out = tmp_path / "table.md"
    run = subprocess.run(
        [sys.executable, "-m", "theory", "table", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    page = (ROOT / "theory" / "README.md").read_text(encoding="utf-8")
    for part in out.read_text(encoding="utf-8").split("\n\n"):
        assert part.strip() in page


def test_the_cost_is_said_once_it_is_known(monkeypatch, capsys):
    task = "20 rows of 2^20 values of each kernel"
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said = progress.Progress()
    # The first hundredth takes 3 s, of compilation, the others half a second each.
    for piece in range(20):
        said(f"row {piece}", piece / 100, task)
        now[0] += 0.5 if piece else 3.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{task}: about 48 s", "row 15 (10 s, 43 s left)"]  # 42.5
    quick = progress.Progress()
    for piece in range(100):
        quick("row", piece / 100, "100 rows")
        now[0] += 0.04
    assert capsys.readouterr().err == ""
