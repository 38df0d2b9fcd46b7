"""The tutorials: outputs committed whole, run through a kernel; the site, without a warning."""

import pathlib
import subprocess
import sys

import pytest
from witnesses.notebooks import assert_committed_whole, code_cells, run_in_kernel

ROOT = pathlib.Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
MAX_BYTES = 150_000


def test_there_are_two():
    assert [path.name[0] for path in TUTORIALS] == ["1", "2"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_outputs_are_committed_whole_and_small(path):
    assert_committed_whole(path, most=MAX_BYTES)
    for cell in code_cells(path):
        compile("".join(cell["source"]), path.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_runs_in_a_kernel_that_starts_in_its_folder(path, monkeypatch):
    """As Jupyter runs it, at a small size."""
    run_in_kernel(path, monkeypatch, JAXSENS_NOTEBOOK_SMALL="1")


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
