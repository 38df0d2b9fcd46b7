r"""The symmetries of a kernel on {±1}^d, checked on the kernel, and its rows with few evaluations.

x is read as T tokens of p = d/T bits. A symmetry maps (x, y) to (g x, g y) and leaves K unchanged.
The candidates are, as they act on the T x p array of bits,

- column permutations (the same permutation of the p bits of every token) and token permutations;
- column flips (bit i of every token changes sign) and token flips (every bit of token a does).

Which of them hold depends on the network, so each generator is tried on pairs of points: on the
whole cube for d <= 6, and else on all pairs among 64 points. Exact symmetries hold to rounding
(TOLERANCE), broken ones fail by far more. Indices and bits follow `jaxsens.boolean`: points
multiply as their indices xor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .architecture import Architecture
from .progress import Tell, silent
from .recursion import scaled_ck_ntk

# A tuple of kernel matrices (n, m) for points (n, d) and (m, d).
Kernel = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]

TOLERANCE = 1e-10  # of the largest entry: float64 rounding through ten layers stays under 1e-12
MAX_DIMENSION = 22  # a row of the kernel, its points and its transform: 2 GiB
MAX_BYTES = 2**33  # of rows
_SAMPLES = 64
_CHUNK = 2**16


def kernel_of(architecture: Architecture) -> Kernel:
    """(CK, NTK) of an architecture by `theory.recursion`, in units of 2^`exponents_of` it."""

    def kernel(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        scaled = scaled_ck_ntk(architecture, x, y)
        return scaled.ck, scaled.ntk

    return kernel


def exponents_of(architecture: Architecture) -> tuple[int, int]:
    """Powers of two in which `kernel_of` gives the CK and the NTK: 0 unless out of range."""
    one = np.ones((1, architecture.tokens))
    scaled = scaled_ck_ntk(architecture, one, one)
    return scaled.ck_exponent, scaled.ntk_exponent


@dataclass(frozen=True)
class Symmetry:
    """What was found for one kernel.

    `flips`: independent indices whose xor is a symmetry, in reduced echelon form; `permutations`:
    generators as arrays, (g x)_i = x_{g[i]}; `names`: the kinds that hold, for people.
    """

    d: int
    flips: tuple[int, ...]
    permutations: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]

    @property
    def pivots(self) -> tuple[int, ...]:
        """The leading bit of each flip; no other flip has it set."""
        return tuple(flip.bit_length() - 1 for flip in self.flips)

    @property
    def representatives(self) -> Int64[np.ndarray, " M"]:
        """One point of every class of points that flips connect: the pivot bits are 0."""
        free = [bit for bit in range(self.d) if bit not in self.pivots]
        return span([1 << bit for bit in reversed(free)])

    def reduce(self, index: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The representative of each point's class."""
        index = np.array(index)
        for flip, pivot in zip(self.flips, self.pivots, strict=True):
            index ^= np.where(index >> pivot & 1, flip, 0)
        return index


def points(index: Int64[np.ndarray, " n"], d: int) -> Float64[np.ndarray, "n d"]:
    """The points ±1 with these indices."""
    return 1.0 - 2.0 * (np.asarray(index)[:, None] >> np.arange(d - 1, -1, -1) & 1)


def span(basis: list[int]) -> Int64[np.ndarray, " N"]:
    """All xors of a basis; the first element goes with the most significant bit of the position."""
    out = np.zeros(1, np.int64)
    for element in reversed(basis):
        out = np.concatenate([out, out ^ element])
    return out


def permute(index: Int64[np.ndarray, " n"], g: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    """Index of g x, (g x)_i = x_{g[i]}."""
    d = len(g)
    out = np.zeros_like(index)
    for i, j in enumerate(g):
        out |= (index >> (d - 1 - j) & 1) << (d - 1 - i)
    return out


def find_symmetry(kernel: Kernel, d: int, tokens: int, *, seed: int = 0) -> Symmetry:
    """Try the candidates on the kernel; what fails on one of its matrices is left out.

    Raises ValueError for T that does not divide d, and for values that are no kernel: not finite or
    not symmetric.
    """
    if not 1 <= d <= MAX_DIMENSION:
        raise ValueError(f"a row of the kernel has 2^d entries: d must be in 1..22, got {d}")
    if tokens < 1 or d % tokens:
        raise ValueError(f"the number of tokens must divide d = {d}, got {tokens}")
    p = d // tokens
    grid = np.arange(d).reshape(tokens, p)
    n = min(2**d, _SAMPLES)
    sample = np.random.default_rng(seed).permutation(2**d)[:n] if 2**d > n else np.arange(n)

    def values(index: np.ndarray) -> np.ndarray:
        x = points(index, d)
        return np.stack(kernel(x, x))

    base = values(sample)
    top = np.abs(base).max(axis=(1, 2), keepdims=True)
    if not np.isfinite(base).all():
        raise ValueError(
            "the kernel is not finite on the cube: lower the depth, the bias or the positions"
        )
    if np.any(np.abs(base - base.transpose(0, 2, 1)) > TOLERANCE * top):
        raise ValueError("K(x, y) differs from K(y, x): a symmetric kernel is needed")

    def holds(index: np.ndarray) -> bool:
        return bool(np.all(np.abs(values(index) - base) <= TOLERANCE * top))

    def generators(axis: int, n: int) -> list[tuple[int, ...]]:
        # A transposition and a cycle generate all permutations.
        swap = np.r_[1, 0, np.arange(2, n)] if n > 1 else np.arange(n)
        choices = {tuple(swap), tuple(np.roll(np.arange(n), 1))} - {tuple(range(n))}
        return [
            tuple(int(i) for i in np.take(grid, order, axis).ravel()) for order in sorted(choices)
        ]

    permutations, names = [], []
    for name, axis, n in (("column permutations", 1, p), ("token permutations", 0, tokens)):
        found = [g for g in generators(axis, n) if holds(permute(sample, g))]
        if found and len(found) == len(generators(axis, n)):
            permutations += found
            names.append(name)
    flips = []
    for name, sets in (("column flips", grid.T), ("token flips", grid)):
        masks = [sum(1 << (d - 1 - int(i)) for i in members) for members in sets]
        found = [mask for mask in masks if holds(sample ^ mask)]
        flips += found
        names += [name] if len(found) == len(masks) else []
    basis = _echelon(flips)
    symmetry = Symmetry(d, basis, (), tuple(names))
    # A permutation is only of use if it maps the flips to flips.
    kept = [g for g in permutations if not symmetry.reduce(permute(np.array(basis, int), g)).any()]
    return Symmetry(d, basis, tuple(kept), tuple(names))


def _echelon(vectors: list[int]) -> tuple[int, ...]:
    basis: list[int] = []
    for vector in vectors:
        for b in basis:
            if vector >> (b.bit_length() - 1) & 1:
                vector ^= b
        if vector:
            top = vector.bit_length() - 1
            basis = [b ^ vector if b >> top & 1 else b for b in basis] + [vector]
    return tuple(sorted(basis, reverse=True))


@dataclass(frozen=True)
class Rows:
    """Rows K(x, .) of a kernel at all `representatives`, stored once per class under permutations.

    `stored`: (classes, kinds, 2^d). Row of representative a: stored[owner[a]] read at
    sigma_a(y) xor shift_a.
    """

    symmetry: Symmetry
    stored: Float64[np.ndarray, "classes kinds N"]
    owners: Int64[np.ndarray, " classes"]  # the point at which each stored row was evaluated
    moves: tuple[tuple[int, tuple[int, ...], int], ...]

    def read(self, a: int, index: np.ndarray) -> np.ndarray:
        """K(x_a, y) for the points y with these indices, any shape: (kinds, *shape)."""
        owner, sigma, shift = self.moves[a]
        return self.stored[owner][:, permute(index, sigma) ^ shift]

    @property
    def counts(self) -> Int64[np.ndarray, " classes"]:
        """How many representatives each stored row stands for."""
        return np.bincount([owner for owner, _, _ in self.moves], minlength=len(self.owners))

    def centred(self) -> Iterator[Float64[np.ndarray, "kinds N"]]:
        """For the owner x of every stored row, K(x, x z) as a function of z."""
        index = np.arange(2**self.symmetry.d)
        for row, x in zip(self.stored, self.owners, strict=True):
            yield row[:, index ^ x]

    def mean(self) -> Float64[np.ndarray, "kinds N"]:
        """z -> E_x[K(x, x z)].

        K(g x, g x z) = K(x, x g^-1 z) for a permutation g, so the mean over the inputs that a
        stored row stands for is that row's mean over the orbit of z: the same at all of it.
        """
        labels = self._orbits()
        sizes = np.bincount(labels)
        total = np.zeros((self.stored.shape[1], len(sizes)))
        for row, count in zip(self.centred(), self.counts, strict=True):
            total += count * np.stack([np.bincount(labels, values) for values in row])
        return (total / (sizes * len(self.moves)))[:, labels]

    def _orbits(self) -> Int64[np.ndarray, " N"]:
        index = np.arange(2**self.symmetry.d)
        images = [permute(index, g) for g in self.symmetry.permutations]
        if not images:
            return index
        edges = np.tile(index, len(images)), np.concatenate(images)
        graph = coo_array((np.ones(len(edges[0]), np.int8), edges), (len(index), len(index)))
        return connected_components(graph, directed=False)[1]


def kernel_rows(kernel: Kernel, symmetry: Symmetry, progress: Tell = silent) -> Rows:
    """Evaluate one row per class of points, 2^d kernel values; `progress` is told which.

    Raises ValueError where the rows would not fit in memory.
    """
    d = symmetry.d
    representatives = symmetry.representatives
    position = {int(x): a for a, x in enumerate(representatives)}
    images = [symmetry.reduce(permute(representatives, g)) for g in symmetry.permutations]
    moved = [permute(representatives, g) for g in symmetry.permutations]
    inverses = [tuple(int(i) for i in np.argsort(g)) for g in symmetry.permutations]
    moves: list[tuple[int, tuple[int, ...], int] | None] = [None] * len(representatives)
    owners: list[int] = []
    for start in range(len(representatives)):
        if moves[start] is not None:
            continue
        moves[start] = (len(owners), tuple(range(d)), 0)
        owners.append(int(representatives[start]))
        queue = [start]
        while queue:
            a = queue.pop()
            owner, sigma, shift = moves[a]
            for image, move, inverse in zip(images, moved, inverses, strict=True):
                b = position[int(image[a])]
                if moves[b] is None:
                    # x_b = g x_a xor s, so K(x_b, y) = K(x_a, g^-1 (y xor s)).
                    composed = tuple(inverse[i] for i in sigma)
                    s = np.array([image[a] ^ move[a]])
                    moves[b] = (owner, composed, int(permute(s, composed)[0]) ^ shift)
                    queue.append(b)
    task = f"{len(owners)} rows of 2^{d} values of each kernel"
    size = 16 * len(owners) * 2**d
    if size > MAX_BYTES:
        raise ValueError(f"{task} would take {size / 2**30:.0f} GiB: lower d")
    stored = []
    starts = range(0, 2**d, _CHUNK)
    for number, x in enumerate(owners):
        here, parts = points(np.array([x]), d), []
        for part, i in enumerate(starts):
            progress(
                f"row {number + 1} of {len(owners)}",
                (number * len(starts) + part) / (len(owners) * len(starts)),
                task,
            )
            there = points(np.arange(i, min(i + _CHUNK, 2**d)), d)
            parts.append(np.stack(kernel(here, there))[:, 0])
        stored.append(np.concatenate(parts, axis=-1))
    return Rows(symmetry, np.stack(stored), np.array(owners), tuple(moves))
