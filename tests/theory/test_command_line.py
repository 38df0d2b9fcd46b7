"""`python -m theory`: verdicts, tables, figures, and errors on one line."""

import re

import numpy as np
import pytest

from theory import figures_noise, softmax_table, table, table_next
from theory.__main__ import main
from theory.architecture import Architecture
from theory.dot_product import dot_product_spectrum
from theory.network_functions import mlp


def test_one_token_holds(capsys):
    main(["check", "--d", "8", "--tokens", "1", "--depth", "2"])
    out = capsys.readouterr().out
    assert out.startswith("Proposition 3.1 holds for T=1")
    assert out.count("yes") == 8
    assert "NO" not in out


def test_several_tokens_fail_by_how_much_and_where(capsys):
    main(["check", "--d", "8", "--tokens", "4", "--readout", "mean", "--mlp", "relu"])
    out = capsys.readouterr().out
    assert out.startswith("Proposition 3.1 does not hold for T=4")
    assert out.count("NO, ") == 8
    assert "0.239 of the Frobenius norm" in out
    assert re.search(r"mu_\{1, 3\} = 0 < mu_\{1, 2, 3, 4\} = 0\.01306", out)


def test_spectrum_by_degree(capsys):
    main(["spectrum", "--d", "6"])
    lines = capsys.readouterr().out.splitlines()[2:]
    expected = dot_product_spectrum(Architecture(mlp="relu"), 6)
    for k, line in enumerate(lines):
        cells = line.split()
        found = [float(cells[1]), float(cells[3])]
        np.testing.assert_allclose(found, [s.eigenvalues[k] for s in expected], rtol=1e-6)
    assert lines[5].split()[1] == "0"  # a structural zero


def test_spectrum_through_blocks(capsys):
    main(["spectrum", "--d", "6", "--tokens", "2", "--top", "3"])
    out = capsys.readouterr().out
    assert "NTK: degree, average" in out
    assert out.count("\n") == 1 + 2 * (1 + 3 + 1 + 7)


def test_table(tmp_path, monkeypatch, capsys):
    names = ("T = 1", "attention + ReLU (by hand)")
    monkeypatch.setattr(table, "CASES", [case for case in table.CASES if case[0] in names])
    monkeypatch.setattr(softmax_table, "CASES", softmax_table.CASES[:1])
    monkeypatch.setattr(table_next, "LARGE", [(table_next.LARGE[-1][0], (66,))])
    monkeypatch.setattr(table_next, "CURVES", [(table_next.CURVES[0][0], (16,))])
    main(["table", "--out", str(tmp_path / "table.md")])
    lines = (tmp_path / "table.md").read_text().splitlines()
    split = lines.index("")
    # Then noise bounds; softmax attention, large d, and samples to learn, of one network each.
    rest = "\n".join(lines[split + 1 :]).split("\n\n")
    assert [len(part.splitlines()) for part in rest] == [8, 4, 4, 4]
    for part in rest:
        assert len({line.count("|") for line in part.splitlines()}) == 1
    assert "| 66 | CK | - | 0.0" in rest[2]
    lines = lines[:split]
    assert len(lines) == 2 + 2 * len(names)
    assert lines[2].count("| yes |") == 2
    assert "mu_{2} = 0.0227113 < mu_{4} = 0.0522492" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_columns(capsys):
    main(["columns", "--d", "16", "--top", "3"])
    out = capsys.readouterr().out
    assert out.startswith("Proposition 3.1 does not hold for T=2, 1 x [linear attention + relu]")
    assert out.count("trace-weighted degree") == 2
    main(["columns", "--d", "66", "--tokens", "3", "--mlp", "none", "--no-embedding", "--top", "1"])
    out = capsys.readouterr().out
    assert "CK: the order along chains holds" in out


def test_softmax(capsys):
    main(["softmax", "--d", "2", "--tokens", "1", "--draws", "2", "--randomisations", "4"])
    out = capsys.readouterr().out
    assert out.startswith("Proposition 3.1 for T=1, 1 x [softmax attention + relu]")
    assert out.count("yes") == 8


def test_curves(capsys):
    main(["curves", "--d", "12", "--tokens", "2", "--samples", "5", "50", "--degrees", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 4
    falling = [float(line.split()[2]) for line in lines[2:4]]
    assert falling[0] > falling[1] > 0


def test_a_figure_is_a_small_png(monkeypatch):
    # The networks of tests/theory/test_noise.py, which are compiled once.
    monkeypatch.setattr(figures_noise, "FAMILIES", {"MLP": mlp(figures_noise.BITS, width=8)})
    monkeypatch.setattr(figures_noise, "DRAWS", 2)
    monkeypatch.setattr(figures_noise, "SEEDS", 2)
    content = figures_noise.proposition_3_2()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(content) < 300_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("check --d 8 --tokens 3", "d = 8, tokens = 3"),
        ("check --readout sum", "unknown readout 'sum'"),
        ("check --attention softmax", "no closed-form kernel"),
        ("check --d 20 --tokens 5 --bias 1", "GiB"),
        ("spectrum --d 5000", r"1\.\.4096, got 5000"),
        ("spectrum --d 4 --tokens 2 --top 0", "top must be at least 1"),
        ("check --nonsense 3", "nonsense"),
        ("check --d eight", "eight"),
        ("columns --d 66 --tokens 3", "4.63e.14 orbits"),
        ("columns --d 16 --top 0", "top must be at least 1"),
        ("softmax --d 10", "d must be <= 9"),
        ("softmax --draws 3", "power of two"),
        ("curves --d 20 --tokens 4", "go to d = 14, got 20"),
        ("curves --samples 0", "positive and finite"),
        ("noise --draws 0", "draws must be at least 1, got 0"),
        ("noise --rho -1", r"rho in \[0, 1\], got -1"),
        ("benchmark --d 1", "between 2 and 4096, got 1"),
        ("nonsense", "nonsense"),
        ("figures --out pyproject.toml", "must be a folder"),
        ("table --out pyproject.toml/table.md", "pyproject.toml"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(table, "CASES", [])
    monkeypatch.setattr(softmax_table, "CASES", ())
    monkeypatch.setattr(table_next, "LARGE", ())
    monkeypatch.setattr(table_next, "CURVES", ())
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize("mlp", ["none", "relu", "erf", "gelu"])
@pytest.mark.parametrize("tokens", [1, 2])
@pytest.mark.parametrize(
    "options", ["--depth 8", "--bias 1e200", "--bias 1e-200", "--positions 1e160"]
)
def test_no_depth_and_no_size_is_a_traceback(mlp, tokens, options, capsys):
    for command in ("spectrum", "check"):
        arguments = f"{command} --d 4 --tokens {tokens} --mlp {mlp} {options}"
        code = 0
        try:
            main(arguments.split())
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        assert code in (0, 2)
        assert captured.err.count("\n") == (code == 2)
        assert "nan" not in captured.out


def test_what_float64_cannot_tell_is_undecided(capsys):
    main(["check", "--d", "4", "--tokens", "2", "--bias", "1e8"])
    assert capsys.readouterr().out.startswith("Proposition 3.1 is undecided")
    main(["check", "--d", "4", "--tokens", "2", "--bias", "1000"])
    assert capsys.readouterr().out.startswith("Proposition 3.1 does not hold")


def test_one_token_is_decided_at_any_d(capsys):
    main(["check", "--d", "100000"])
    out = capsys.readouterr().out
    assert out.startswith("Proposition 3.1 holds for T=1")
    assert out.count("yes") == 8
