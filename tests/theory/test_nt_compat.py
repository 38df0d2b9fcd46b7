"""neural-tangents imports, without TensorFlow, and JAX is left as it was found."""

import importlib.metadata
import subprocess
import sys
import textwrap

import jax
import pytest

from theory import nt_compat


def run(code: str) -> str:
    """In a fresh interpreter, since what is imported here is imported for good."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_imports_without_tensorflow_and_leaves_nothing_behind():
    out = run("""
        import sys
        import jax, jax.core, jax.interpreters.ad as ad
        # So that a difference below can only come from the names restored for the import.
        import jax.example_libraries.stax, jax.experimental.ode, jax.extend.linear_util
        before = dict(vars(jax.core)), dict(vars(ad)), dict(vars(jax))
        import theory, theory.kernels
        assert "neural_tangents" not in sys.modules, "imported before it was needed"
        from theory.nt_compat import neural_tangents
        nt = neural_tangents()
        assert neural_tangents() is nt
        after = dict(vars(jax.core)), dict(vars(ad)), dict(vars(jax))
        for a, b in zip(before, after):
            assert a == b, set(a) ^ set(b)
        roots = {name.split(".")[0] for name in sys.modules}
        assert not roots & {"tensorflow", "tf2jax", "torch"}, roots
        assert "jax.util" not in sys.modules
        assert not [m for m in sys.modules if m.startswith("neural_tangents.experimental")]
        assert not hasattr(nt, "experimental")
        print(nt.__version__)
    """)
    assert out == "0.6.5"


def test_recovers_from_a_plain_import_that_failed():
    run("""
        import sys
        try:
            sys.modules["neural_tangents.experimental"] = type(sys)("stub")
            import neural_tangents
        except ImportError:
            pass
        else:
            raise AssertionError("imports by itself: this module is no longer needed")
        del sys.modules["neural_tangents.experimental"]
        from theory.nt_compat import neural_tangents
        assert neural_tangents().__version__ == "0.6.5"
    """)


def test_another_release_is_refused(monkeypatch):
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.6.4")
    with pytest.raises(ImportError, match=r"expected neural-tangents 0\.6\.5, found 0\.6\.4"):
        nt_compat.neural_tangents()


def test_absent(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(ImportError, match=r"pip install neural-tangents==0\.6\.5"):
        nt_compat.neural_tangents()


def test_old_jax_is_refused(monkeypatch):
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(jax, "__version_info__", (0, 9, 2))
    monkeypatch.setattr(jax, "__version__", "0.9.2")
    with pytest.raises(ImportError, match=r"expected jax >= 0\.10, found 0\.9\.2"):
        nt_compat.neural_tangents()


def test_a_jax_to_come_is_named_and_jax_is_restored(monkeypatch):
    real = sys.modules.get("neural_tangents")
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)

    def broken(name):
        raise AttributeError("module 'jax' has no attribute 'something'")

    monkeypatch.setattr(nt_compat.importlib, "import_module", broken)
    with pytest.raises(ImportError, match=f"does not import on jax {jax.__version__}") as caught:
        nt_compat.neural_tangents()
    assert "\n" not in str(caught.value)
    assert not hasattr(jax.core, "Jaxpr")
    assert "jax.util" not in sys.modules
    if real is not None:
        monkeypatch.setitem(sys.modules, "neural_tangents", real)


@pytest.mark.parametrize("values", [([1, 2], [3]), ([], [1])])
def test_zip_insists_on_equal_lengths(values):
    with pytest.raises(ValueError, match=r"argument"):
        nt_compat._safe_zip(*values)
    assert nt_compat._safe_map(lambda a, b: a + b, [1, 2], [3, 4]) == [4, 6]
