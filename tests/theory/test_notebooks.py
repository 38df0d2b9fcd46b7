"""Every notebook runs top to bottom on a small cube, without Jupyter; its outputs are committed."""

import ast
import pathlib

import matplotlib
import pytest
from witnesses.notebooks import assert_committed_whole, code_cells, run_in_kernel

NOTEBOOKS = sorted((pathlib.Path(__file__).parents[2] / "theory" / "notebooks").glob("*.ipynb"))
MAX_BYTES = 400_000


def test_there_are_five():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.slow) if path.name[0] == "4" else path
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_runs(path, monkeypatch):
    """Cells in order in one namespace, at d = 6; a warning is an error here as in every test."""
    monkeypatch.setenv("JAXSENS_NOTEBOOK_D", "6")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    namespace = {"__name__": "__main__"}
    with matplotlib.rc_context():
        for number, cell in enumerate(code_cells(path)):
            source = "".join(cell["source"])
            exec(compile(source, f"{path.name}, code cell {number}", "exec"), namespace)
        figures = plt.get_fignums()
        plt.close("all")
    assert namespace["D"] == 6
    drawn = sum(
        "image/png" in out.get("data", {}) for c in code_cells(path) for out in c["outputs"]
    )
    assert len(figures) == drawn > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_committed_whole_and_small(path):
    assert_committed_whole(path, most=MAX_BYTES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_dimension_is_set_once_and_logic_lives_in_the_package(path):
    source = "\n".join("".join(cell["source"]) for cell in code_cells(path))
    assert source.count("JAXSENS_NOTEBOOK_D") == 1
    tree = ast.parse(source)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert any(module.startswith("theory") for module in modules)


@pytest.mark.parametrize(
    "path",
    [
        path if path.name[0] == "3" else pytest.param(path, marks=pytest.mark.slow)
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
def test_runs_in_a_kernel_that_starts_in_its_folder(path, monkeypatch):
    """As Jupyter runs it, at d = 6."""
    run_in_kernel(path, monkeypatch, JAXSENS_NOTEBOOK_D="6")
