"""The tutorials: outputs committed whole, run through a kernel; the site, without a warning."""

import json
import pathlib
import subprocess
import sys
import warnings

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
MAX_BYTES = 150_000


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_two():
    assert [path.name[0] for path in TUTORIALS] == ["1", "2"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_outputs_are_committed_whole_and_small(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert not any(output.get("name") == "stderr" for cell in cells for output in cell["outputs"])
    assert path.stat().st_size < MAX_BYTES
    for cell in cells:
        compile("".join(cell["source"]), path.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs_in_a_kernel_that_starts_in_its_folder(path, monkeypatch):
    """As Jupyter runs it, at a small size: a process of its own, the clone not on its path."""
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    monkeypatch.setenv("JAXSENS_NOTEBOOK_SMALL", "1")
    for name in ("PYTHONPATH", "PYTEST_CURRENT_TEST"):
        monkeypatch.delenv(name, raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Jupyter libraries, about themselves
        client.execute()


@pytest.mark.slow
def test_the_site_builds_and_asks_the_network_for_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    pages = list(tmp_path.rglob("*.html"))
    names = {str(page.relative_to(tmp_path)) for page in pages}
    assert {
        "index.html", "report.html", "report/index.html", "api/jaxsens/index.html",
        "tutorials/1_measure_your_own_model/index.html", "theory/notebooks/1_spectra/index.html",
    } <= names  # fmt: skip
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for start in ('<script src="http', '<link rel="stylesheet" href="http', '<img src="http'):
            assert start not in text, page
