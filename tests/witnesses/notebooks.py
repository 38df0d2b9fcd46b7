"""Committed notebooks: their cells, what stands in them, and a run as Jupyter makes it."""

import json
import warnings

import pytest


def code_cells(path):
    """The cells of code, in order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def assert_committed_whole(path, *, most):
    """Executed once from top to bottom, without an error or a warning, in ``most`` bytes."""
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert not any(output.get("name") == "stderr" for output in outputs)
    assert path.stat().st_size < most


def run_in_kernel(path, monkeypatch, **environment):
    """Run every cell in a process of its own that starts in the folder, the clone not on its path.

    An exception in a cell is raised.
    """
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("PYTHONPATH", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter libraries, about themselves
        client.execute()
