"""A measurement on the device: a plan's rows through the model, several batches a call."""

import functools
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from jaxsens._batch import CPU_ROWS, PROBE, default_batch_size
from jaxsens._check import check_members, leaf_number, positive_int
from jaxsens._decision import Seen, Verdicts, checked_decision, judge, problem
from jaxsens._inference import inference
from jaxsens._model import combine, compile_once, partition
from jaxsens._outputs import check_model, outputs_of
from jaxsens._perturb import replace_tokens
from jaxsens._plan import CLEAN, Call, Plan, Rows
from jaxsens._purity import check_rows, precision
from jaxsens.noise import Noise
from jaxsens.placement import Inputs, divide, put, replicate, take
from jaxsens.tokens import Tokens

BATCHES = 8  # batches of one call of the program, so that a device does not wait for the host
IN_FLIGHT = 2  # calls queued ahead of the results read back
CHUNK_BYTES = 2**28  # of inputs, what a call may be handed at most unless one batch needs more
SAMPLE = 8  # examples that are embedded to see what the model is given


class Settings(NamedTuple):
    """What the compiled program is made for beside the model; ``leaf`` is the perturbed one.

    ``decision`` is as :func:`jaxsens._decision.checked_decision` returns it; a batch's rows are
    divided over ``mesh``.
    """

    tokens: Tokens
    noise: Noise
    leaf: int
    decision: Any = None
    mesh: Mesh | None = None


@compile_once
def decide(
    models: tuple[Any, ...],
    settings: Settings,
    key: Array,
    chunk: Any,
    offsets: Int[Array, " K"],
    rows: Rows,
    count: Array,
) -> Verdicts:
    """The verdicts (K, B) on the rows of a call (:class:`jaxsens._plan.Call`).

    ``models`` are the model and, if there is one, what embeds its inputs.
    """
    arrays, static = partition((models, settings))

    def share(arrays: list[Any], *args: Any) -> Verdicts:
        return _decided(*combine(arrays, static), *args)

    # Of its arguments, the rows (number 4) are divided.
    return divide(share, settings.mesh, (4,))(arrays, key, chunk, offsets, rows, count)


def _decided(
    models: tuple[Any, ...],
    settings: Settings,
    key: Array,
    chunk: Any,
    offsets: Int[Array, " K"],
    rows: Rows,
    count: Array,
) -> Verdicts:
    """:func:`decide` on one device."""
    shape = rows.token.shape
    block = jax.tree.leaves(chunk)[0].shape[0] // shape[0]

    def batch(i: Array, found: Verdicts) -> Verdicts:
        # Rebuilt here, because flax lets a module change only in the trace that it is from.
        model, *embed = map(inference, jax.tree.map(lambda leaf: leaf, models))
        inputs, within = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, offsets[i], block), chunk
        )
        own = jax.tree.map(lambda column: column[i], rows)
        given = embed[0](inputs) if embed else inputs
        noised = [
            replace_tokens(settings.tokens, settings.noise, leaf, within, own, key)
            if number == settings.leaf
            else leaf[own.place]
            for number, leaf in enumerate(jax.tree.leaves(given))
        ]
        outputs = outputs_of(model, jax.tree.unflatten(jax.tree.structure(given), noised))
        return jax.tree.map(
            lambda all_of_them, own: all_of_them.at[i].set(own) if own.ndim else own,
            found,
            judge(outputs, settings.decision),
        )

    nothing = jnp.zeros(shape, jnp.float32)
    found = Verdicts(nothing.astype(jnp.int32), nothing, nothing, jnp.int32(0))
    return jax.lax.fori_loop(0, count, batch, found)


@compile_once
def embedded(models: tuple[Any, ...], settings: None, inputs: Any) -> Any:
    """What the model is given for a block of inputs."""
    return inference(models[0])(inputs)


class Runner:
    """One model on its inputs, prepared: which tokens there are, and a plan's decisions.

    ``valid`` (N, T) says which tokens are real.
    """

    def __init__(
        self,
        model: Any,
        inputs: Inputs,
        *,
        key: Array,
        tokens: Tokens,
        noise: Noise,
        perturb: str | int | None = None,
        embed: Any = None,
        decision: Any = None,
        batch_size: int | None = None,
    ) -> None:
        for name, value in (("model", model), *((("embed", embed),) if embed is not None else ())):
            check_model(value, name)
        models = (model,) if embed is None else (model, embed)
        mesh = inputs.mesh
        self._models = replicate(tuple(map(inference, models)), mesh)
        self.inputs = inputs
        tokens = tokens.bind(inputs.host) if hasattr(tokens, "bind") else tokens
        leaf, number = self._perturbed(perturb)
        shape = (len(inputs), *leaf.shape[1:])
        self.valid = _valid_tokens(tokens, shape)
        noise.check(leaf)
        within = tokens.within(shape) if hasattr(tokens, "within") else None
        self._stored, self._key = (inputs.stored, within), replicate(key, mesh)
        # Numbers of the noise are traced, so that another variance is not another program.
        noise = jax.tree.map(lambda n: np.float32(n) if isinstance(n, float) else n, noise)
        self._settings = Settings(tokens, noise, number, checked_decision(decision), mesh)
        self._seen, self._checked = Seen(decision), False
        self._devices = 1 if mesh is None else mesh.size
        # Some models are made for one size of batch: one that was asked for is kept to.
        self._exactly = batch_size is not None
        if batch_size is not None:
            self.batch_size = positive_int("batch_size", batch_size)
            if self.batch_size % self._devices:
                raise ValueError(
                    f"batch_size={batch_size} cannot be divided over {self._devices} devices"
                )
        self._program: Callable[..., Any] = decide(self._models, self._settings)

    def _perturbed(self, perturb: str | int | None) -> tuple[Any, int]:
        """The array that holds the tokens (embedded: of a few examples), and its place."""
        inputs, what = self.inputs.host, "inputs"
        if len(self._models) > 1:
            few = jax.tree.map(lambda a: a[np.arange(SAMPLE) % len(self.inputs)], inputs)
            inputs, what = embedded(self._models[1:], None)(few), "embed's result"
            for leaf in jax.tree.leaves(inputs):
                if jnp.shape(leaf)[:1] != (SAMPLE,):
                    raise ValueError(
                        f"embed returned an array of shape {jnp.shape(leaf)} for {SAMPLE} "
                        "examples; expected arrays with the batch first"
                    )
            inputs = jax.tree.map(np.asarray, inputs)
        number = leaf_number(inputs, perturb, "perturb", what)
        return jax.tree.leaves(inputs)[number], number

    def _default_rows(self) -> int:
        """By what the model computes for a batch of PROBE rows on each device, which is traced."""
        of_one = np.zeros((1, PROBE * self._devices), np.int32)
        args = self._arguments(Call(of_one[0], of_one[:, 0], Rows(*[of_one] * 4), 1))
        program: Any = self._program
        if isinstance(program, functools.partial):
            program, args = program.func, (*program.args, *args)
        try:
            return default_batch_size(program, args) * self._devices
        except (TypeError, ValueError):  # the call itself says what is wrong, of its own batch
            return CPU_ROWS * self._devices

    def shapes(self, most: int, full: Plan | None = None) -> None:
        """Choose the size of a batch (at most ``most``), and the shapes that ``full`` needs.

        They hold for all plans to come, because a plan of its own shapes would compile.
        """
        if not self._exactly:
            self.batch_size = min(self._default_rows(), most + -most % self._devices)
        self._block = full.block(self.batch_size) if full else self.batch_size
        each = sum(leaf.nbytes for leaf in jax.tree.leaves(self.inputs.host)) / len(self.inputs)
        batches = min(BATCHES, -(-full.total // self.batch_size)) if full else BATCHES
        self._batches = max(1, min(batches, int(CHUNK_BYTES / max(each * self._block, 1))))

    def run(self, plan: Plan) -> tuple[Int[np.ndarray, " total"], Float[np.ndarray, " total"]]:
        """Decisions and margins of the plan's rows.

        Raises ValueError where an output decides nothing, or depends on anything but its row.
        """
        decisions, margins = np.empty(plan.total, np.int32), np.empty(plan.total, np.float32)
        pending: deque[tuple[int, Verdicts]] = deque()

        def read_back() -> None:
            start, results = pending.popleft()
            part = slice(start, min(start + results.decision.size, plan.total))
            for all_of_them, result in zip((decisions, margins), results[:2], strict=True):
                all_of_them[part] = jax.device_get(result).reshape(-1)[: part.stop - start]
            found = margins[part]
            if not (found >= 0).all():
                first = int((found >= 0).argmin())
                row = plan.rows(np.asarray([start + first]))
                place = "clean" if row.token[0] == CLEAN else f"with token {row.token[0]} replaced"
                what, remedy = problem(float(found[first]))
                raise ValueError(f"the model {what} for input {row.example[0]} ({place}); {remedy}")
            reading = jax.device_get(results.reading)
            self._seen.add(Verdicts(decisions[part], found, found, reading))
            if not self._checked:
                self._checked = True
                sizes = jax.device_get(results.size).reshape(-1)[: len(found)]
                self._check_rows(plan, Verdicts(decisions[part], found, sizes, reading))

        for start, call in plan.calls(self.batch_size, self._batches, self._block):
            pending.append((start, self._program(*self._arguments(call))))
            if len(pending) > IN_FLIGHT:
                read_back()
        while pending:
            read_back()
        return decisions, margins

    def conclude(self, stacklevel: int) -> None:
        """Raises ValueError or warns where the decisions seen cannot be, or mean nothing."""
        self._seen.check(len(self.inputs), stacklevel + 1)

    def _arguments(self, call: Call) -> tuple[Any, ...]:
        chunk = take(self._stored, call.chunk)
        host = call.offsets.astype(np.int32), call.rows, np.int32(call.batches)
        return self._key, *put((chunk, *host), self.inputs.mesh)

    def _check_rows(self, plan: Plan, recorded: Verdicts) -> None:
        """One more batch: rows of the first call in other company and order."""
        program, shape = self._program, (self._batches, self.batch_size)
        rows = plan.rows(np.arange(len(recorded.decision)))

        def call(index: Int[np.ndarray, " B"]) -> Call:
            own = Rows(*(column[index] for column in rows))
            examples, place = np.unique(own.example, return_inverse=True)
            own = own._replace(place=place.astype(np.int32))
            chunk = np.resize(examples, shape[0] * self._block)
            columns = (np.broadcast_to(column, shape) for column in own)
            return Call(chunk, np.zeros(shape[0], np.int32), Rows(*columns), 1)

        def run(index: Int[np.ndarray, " B"]) -> Verdicts:
            found = jax.device_get(program(*self._arguments(call(index))))
            return jax.tree.map(lambda column: column[0] if column.ndim else column, found)

        eps = precision(program, self._arguments(call(np.zeros(shape[1], np.int32))))
        check_rows(run, recorded, rows.place, shape[1], self._block, eps)


def check_protocols(tokens: Any, noise: Any) -> None:
    """Raises TypeError unless both are given and have the members of their protocols."""
    if tokens is None or noise is None:
        raise TypeError(
            f"{'tokens' if tokens is None else 'noise'} must be given: what a token is and what "
            "replaces it, such as tokens=Patches(4), noise=Gaussian(variance=1.0)"
        )
    check_members("tokens", tokens, ("shared", "count", "valid", "replace"), "Patches(4)")
    check_members("noise", noise, ("deterministic", "check", "__call__"), "Gaussian(1.0)")


def _valid_tokens(tokens: Tokens, shape: tuple[int, ...]) -> Bool[np.ndarray, "N T"]:
    count, valid = tokens.count(shape), tokens.valid(shape)
    expected = (shape[0], count)
    valid = np.ones(expected, bool) if valid is None else np.asarray(valid)
    if valid.dtype != bool or valid.shape != expected or not valid.any(axis=1).all():
        raise ValueError(
            f"{type(tokens).__name__}.valid must give a boolean array of shape {expected} with a "
            f"real token in every example, got {valid.dtype} of shape {valid.shape}"
        )
    return valid
