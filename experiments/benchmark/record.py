"""A benchmark's record: one JSON file of what was measured, where and with what."""

import json
from pathlib import Path
from typing import Any

from experiments.run.cli import UserError
from experiments.run.record import provenance, to_json, write_whole


def check_new(out: Path | None) -> None:
    """Raise UserError where --out is a file already, before anything is measured."""
    if out is not None and out.exists():
        raise UserError(f"{out} exists; choose another --out")


def write(out: Path | None, benchmark: str, config: Any, **found: Any) -> None:
    """Write what was found to --out, with the provenance of code and packages; None: nothing."""
    if out is not None:
        record = {"benchmark": benchmark, "config": config, **found, **provenance()}
        write_whole(out, (json.dumps(to_json(record), indent=2) + "\n").encode())
