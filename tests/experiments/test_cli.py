"""Errors are one line and exit 2, interrupts one line and exit 130, bugs keep their traceback."""

import dataclasses
import sys

import pytest

from experiments.run.cli import Common, UserError, parse, run
from jaxsens.checkpoints import CheckpointError
from jaxsens.data import DataError


@dataclasses.dataclass(frozen=True)
class Config(Common):
    """A task."""

    rate: float = 0.5
    """How fast."""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--nonsense"], "--nonsense"),
        (["--rate", "fast"], "--rate"),
        (["--rate"], "--rate"),
        (["--seeds", "1.5"], "--seeds"),
        (["--seeds", ""], "--seeds"),
        (["--no-such-thing", "3", "--rate", "x", "--seeds", "y"], ""),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_option_is_one_line(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, prog="experiments.task", args=args)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert line.endswith("(see python -m experiments.task --help)")
    assert not set("│╭╰─\x1b") & set(line)


def test_right_options():
    config = parse(Config, prog="t", args=["--rate", "2", "--seeds", "3", "--smoke", "--data", "x"])
    assert config == Config(rate=2.0, seeds=3, smoke=True, data="x")


def test_help_shows_every_option_with_its_text(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, prog="experiments.task", args=["--help"])
    assert not stop.value.code
    out, err = capsys.readouterr()
    assert err == ""
    assert "A task." in out
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')}" in out
    assert "How fast." in out


def execute(monkeypatch, error, args=()):
    def main(config):
        raise error

    monkeypatch.setattr(sys, "argv", ["task", *args])
    run(main, Config, prog="experiments.task")


@pytest.mark.parametrize(
    "error",
    [
        UserError("no"),
        DataError("no"),
        CheckpointError("no"),
        FloatingPointError("no"),
        OSError("no"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(monkeypatch, capsys, error):
    with pytest.raises(SystemExit) as stop:
        execute(monkeypatch, error)
    assert stop.value.code == 2
    assert capsys.readouterr() == ("", "error: no\n")


def test_a_message_of_several_lines_becomes_one(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        execute(monkeypatch, UserError("no file 'a\nb'\n\n"))
    assert capsys.readouterr().err == "error: no file 'a b'\n"


@pytest.mark.parametrize("message", [(), ("saved",)])
def test_an_interrupt_is_one_line(monkeypatch, capsys, message):
    with pytest.raises(SystemExit) as stop:
        execute(monkeypatch, KeyboardInterrupt(*message))
    assert stop.value.code == 130
    assert capsys.readouterr().err == "; ".join(["interrupted", *message]) + "\n"


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), KeyError("bug")])
def test_bugs_are_not_hidden(monkeypatch, error):
    with pytest.raises(type(error), match="bug"):
        execute(monkeypatch, error)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "--seeds must be at least 1, got 0"),
        ({"seeds": -3}, "--seeds must be at least 1, got -3"),
        ({"seed": -1}, "--seed must lie between 0 and 4294967295, got -1"),
        ({"seed": 2**32 - 1, "seeds": 2}, "--seed must lie between 0 and 4294967294"),
        ({"seed": 10**30}, "--seed must lie between"),
    ],
)
def test_common_options_are_checked(options, message):
    with pytest.raises(UserError, match=message):
        Common(**options).check()


def test_common_options_at_their_limits():
    Common(seed=2**32 - 2, seeds=2).check()
    Common(seed=0, seeds=1).check()
