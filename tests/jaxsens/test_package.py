"""What `import jaxsens` gives: every submodule by name, each name one thing, nothing heavy."""

import importlib
import pkgutil
import subprocess
import sys
import types

import pytest

import jaxsens

CODE = """
import sys, jaxsens
heavy = {"jaxsens.training", "jaxsens.models", "jaxsens.data", "orbax.checkpoint", "PIL"}
print(sorted(heavy & set(sys.modules)), jaxsens.boolean.__name__, "boolean" in dir(jaxsens))
"""


def test_submodules_are_there_when_asked_for():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] jaxsens.boolean True"


def test_every_public_submodule_is_one_thing():
    for found in pkgutil.iter_modules(jaxsens.__path__):
        if not found.name.startswith("_"):
            assert found.name in dir(jaxsens)
            module = importlib.import_module(f"jaxsens.{found.name}")
            assert getattr(jaxsens, found.name) is module
    for name in ("sensitivity", "decision"):
        assert not isinstance(getattr(jaxsens, name), types.ModuleType)
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"jaxsens.{name}")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = jaxsens.nothing
