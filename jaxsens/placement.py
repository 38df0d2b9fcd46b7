"""Where arrays lie: the one place that puts them on a device, or on many."""

import contextlib
import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

Tree = TypeVar("Tree")
F = TypeVar("F", bound=Callable[..., Any])
ROWS = "jaxsens_rows"  # the axis of a mesh that rows are divided over
SEEDS = "jaxsens_seeds"  # and in training that of the seeds
RESIDENT_BYTES = 2**30  # inputs up to this go to the device as a whole, where it tells no limit


def rows_mesh(mesh: Any, *trees: Any) -> Mesh | None:
    """The devices to divide rows over, as a mesh of one axis; None for the default device alone.

    They are those of ``mesh``, whatever its axes and their types, or where it is None those that
    the arrays in ``trees`` (inputs, model) are sharded over. Raises TypeError for what is no mesh,
    ValueError for arrays that lie on different sets of devices.
    """
    if mesh is not None and not isinstance(mesh, Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
    sets: dict[frozenset[Any], list[Any]] = {}
    if mesh is not None:
        sets[frozenset(mesh.devices.flat)] = list(mesh.devices.flat)
    else:
        for leaf in jax.tree.leaves(trees):
            if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
                ordered = sorted(leaf.sharding.device_set, key=operator.attrgetter("id"))
                sets.setdefault(frozenset(ordered), ordered)
    if len(sets) > 1:
        sizes = " and ".join(str(len(devices)) for devices in sets)
        raise ValueError(
            f"inputs and model lie on different sets of devices ({sizes} of them): pass mesh= to "
            "say over which to divide the rows"
        )
    if not sets:
        return None
    ((_, devices),) = sets.items()
    return Mesh(np.asarray(devices), (ROWS,), axis_types=(AxisType.Auto,))


def placed(function: F) -> F:
    """Decorator for a measurement ``(..., mesh=)``: ``mesh`` becomes that of rows.

    Within, what goes to the device and back does so by design, whatever ``jax.transfer_guard``
    says, and the caller's ``jax.set_mesh`` holds no longer; it serves as ``mesh``.
    """

    @functools.wraps(function)
    def call(*args: Any, mesh: Any = None, **options: Any) -> Any:
        around = jax.sharding.get_mesh()
        rows = rows_mesh(around if mesh is None and not around.empty else mesh, args, options)
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.transfer_guard("allow"))
            if not around.empty:
                # Arrays made under the caller's mesh are of its kind; those of NumPy are of none.
                args, options = jax.tree.map(_to_host, (args, options))
                stack.enter_context(jax.set_mesh(rows))
            return function(*args, mesh=rows, **options)

    return cast(F, call)


def put(tree: Any, mesh: Mesh | None) -> Any:
    """Host arrays on the default device, or whole on each device of the mesh."""
    return jax.device_put(tree, None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def replicate(tree: Any, mesh: Mesh | None) -> Any:
    """``tree`` with every array on all devices of the mesh, in whatever way they are sharded."""
    return tree if mesh is None else _place(tree, NamedSharding(mesh, PartitionSpec()))


def _place(tree: Any, sharding: NamedSharding) -> Any:
    """``tree`` with every array sharded so, wherever it lies now."""

    def place(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = jax.device_put(_to_host(leaf), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        return jax.device_put(_to_host(leaf), sharding)  # other hosts take NumPy arrays alone

    return jax.tree.map(place, tree)


def _to_host(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or not leaf.is_fully_addressable:
        return leaf
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def divide(function: Callable[..., Any], mesh: Mesh | None, divided: tuple[int, ...]) -> Any:
    """``function`` of arrays run on every device of the mesh, with results put together.

    The arguments of the numbers ``divided``, and all results of two axes, are (K, B) and are split
    along B; everything else each device holds whole. Every device ends with all results.
    """
    if mesh is None:
        return function

    def on_each(*args: Any) -> Any:
        return jax.tree.map(
            lambda part: (
                jax.lax.all_gather(part, ROWS, axis=1, tiled=True) if part.ndim == 2 else part
            ),
            function(*args),
        )

    def call(*args: Any) -> Any:
        specs = tuple(
            PartitionSpec(None, ROWS) if number in divided else PartitionSpec()
            for number in range(len(args))
        )
        return jax.shard_map(
            on_each, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False
        )(*args)

    return call


class Inputs(NamedTuple):
    """The caller's examples: on the host, and where the chunks of a call are taken from."""

    host: Any
    stored: Any
    mesh: Mesh | None = None

    @classmethod
    def place(cls, given: Any, host: Any, mesh: Mesh | None = None) -> "Inputs":
        """On the device(s) at once, or chunk by chunk where a quarter of the memory is less."""
        limits = jax.local_devices()[0].memory_stats() or {}
        bound = limits.get("bytes_limit", 4 * RESIDENT_BYTES) // 4
        if sum(leaf.nbytes for leaf in jax.tree.leaves(host)) > bound:
            return cls(host, host, mesh)
        on_device = all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(given))
        return cls(host, given if on_device and mesh is None else put(host, mesh), mesh)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.host)[0])


_take_on_device = jax.jit(lambda leaf, index: leaf[index])


def take(tree: Any, index: Int[np.ndarray, " chunk"]) -> Any:
    """The examples of those numbers, gathered where they lie."""
    return jax.tree.map(
        lambda leaf: leaf[index] if isinstance(leaf, np.ndarray) else _take_on_device(leaf, index),
        tree,
    )


def training_mesh(mesh: Any, seeds: int) -> Mesh | None:
    """The devices of ``mesh`` for S seeds: as many groups as divide both, and rows within a group.

    Raises TypeError for what is no mesh.
    """
    if mesh is None:
        return None
    devices = cast(Mesh, rows_mesh(mesh)).devices
    groups = math.gcd(seeds, devices.size)
    return Mesh(devices.reshape(groups, -1), (SEEDS, ROWS), axis_types=(AxisType.Auto,) * 2)


def shared(tree: Tree, mesh: Mesh | None = None) -> Tree:
    """What all seeds read: the data, whole on each device."""
    return jax.device_put(tree) if mesh is None else cast(Tree, replicate(tree, mesh))


def by_seed(tree: Tree, mesh: Mesh | None = None) -> Tree:
    """What has a leading axis of S seeds: the state of a training, its keys, data of their own."""
    if mesh is None:
        return jax.device_put(tree)
    return cast(Tree, _place(tree, NamedSharding(mesh, PartitionSpec(SEEDS))))


def each_seed(function: F, mesh: Mesh | None, in_axes: tuple[int | None, ...]) -> F:
    """``function`` for every seed side by side, those of a group of devices on it; traced."""
    return jax.vmap(function, in_axes, spmd_axis_name=None if mesh is None else SEEDS)


def constrain(tree: Tree, mesh: Mesh | None, axis: str | None) -> Tree:
    """Arrays whose first axis lies over ``axis`` of the mesh, or that every device has; traced."""
    if mesh is None:
        return tree
    sharding = NamedSharding(mesh, PartitionSpec(axis))
    return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharding), tree)


def read(array: Any) -> np.ndarray:
    """The values, also where other hosts have some of them (then every process calls this)."""
    if isinstance(array, jax.Array) and not (
        array.is_fully_addressable or array.is_fully_replicated
    ):
        mesh = cast(NamedSharding, array.sharding).mesh
        array = _place(array, NamedSharding(cast(Mesh, mesh), PartitionSpec()))
    return np.asarray(array)
