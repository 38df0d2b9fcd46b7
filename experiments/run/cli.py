"""The command line of an experiment: `command.line`, and the library's own errors."""

from collections.abc import Callable
from typing import Any

from command import line
from command.line import UserError as UserError
from command.line import parse as parse
from experiments.run.options import Common as Common


def run(
    main: Callable[[Any], None],
    config: Any,
    *,
    prog: str,
    args: list[str] | None = None,
    device: bool = True,
) -> None:
    """`command.line.run`, with the library's own errors among what the user can put right.

    That JAX finds a device is tried before anything else. ``device=False`` is for a command that
    needs none, nor JAX.
    """
    errors: tuple[type[Exception], ...] = ()
    if device:
        from jaxsens.checkpoints import CheckpointError
        from jaxsens.data import DataError

        errors = CheckpointError, DataError

    def started(options: Any) -> None:
        if device:
            import jax

            jax.devices()
        main(options)

    line.run(started, config, prog=prog, args=args, errors=errors)
