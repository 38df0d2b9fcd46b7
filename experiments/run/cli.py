"""The command line of an experiment: `command.line`, and the library's own errors."""

from collections.abc import Callable, Mapping
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


def run_one_of(modules: Mapping[str, Any], *, prog: str) -> None:
    """A subcommand for each module, by its name: its ``Config``, which its ``main`` takes."""
    import tyro

    def main(config: Any) -> None:
        # A configuration may extend another module's: its class itself says whose it is.
        (chosen,) = (module for module in modules.values() if type(config) is module.Config)
        chosen.main(config)

    configs = {name: module.Config() for name, module in modules.items()}
    run(main, tyro.extras.subcommand_type_from_defaults(configs), prog=prog)
