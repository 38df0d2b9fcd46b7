"""What is published: the package alone, with metadata that a registry takes."""

import email
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_wheel(tmp_path):
    def run(*args):
        done = subprocess.run(
            [sys.executable, *args], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr

    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("figures/"):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", clone)
    (wheel,) = (tmp_path / "dist").iterdir()
    run("-m", "twine", "check", "--strict", wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        described = email.message_from_bytes(archive.read(metadata))
    assert {name.partition("/")[0] for name in names} == {"jaxsens", metadata.partition("/")[0]}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "jaxsens").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert "jaxsens/py.typed" in names
    assert described.get_all("Provides-Extra") == ["hub", "text", "data", "cuda"]
    assert "come with the clone" in " ".join(described.get_payload().split())
