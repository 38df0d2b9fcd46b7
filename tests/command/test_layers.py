"""No import goes upward: command, then jaxsens and theory, then experiments."""

import ast
from pathlib import Path

import pytest

import command

ROOT = Path(command.__file__).parents[1]
ABOVE = {
    "command": {"jaxsens", "theory", "experiments", "jax", "numpy"},
    "jaxsens": {"command", "theory", "experiments"},
    "theory": {"experiments"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


@pytest.mark.parametrize("package", ABOVE)
def test_no_import_goes_upward(package):
    files = list((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    wrong = [
        (str(file.relative_to(ROOT)), name)
        for file in files
        for name in imported(file)
        if name.split(".")[0] in ABOVE[package]
    ]
    assert not wrong
