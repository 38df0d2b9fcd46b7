"""Commands run in this process, and what they leave behind."""

import json
import sys

from experiments.run import cli


def execute(module, *args):
    """Exit status of a command, run in this process."""
    argv, sys.argv = sys.argv, ["prog", *map(str, args)]
    try:
        cli.run(module.main, module.Config, prog=module.__name__)
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = argv
    return 0


def one_line(module, *args, capsys):
    """The one line on standard error of a command that must fail with status 2."""
    capsys.readouterr()
    assert execute(module, *args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def read(directory):
    """Result and evaluations of a run."""
    result = json.loads((directory / "result.json").read_text())
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return result, lines


def timeless(value):
    """A record without what differs between two runs of the same command."""
    if isinstance(value, dict):
        return {
            k: timeless(v) for k, v in value.items() if k not in ("seconds", "command", "commit")
        }
    return [timeless(item) for item in value] if isinstance(value, list | tuple) else value
