"""Inputs that are pytrees, embeddings made on the device, masks read from the inputs."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial

import jaxsens._run
import jaxsens.placement
from jaxsens import Bits, Flip, Gaussian, Patches, Positions, Replacement, Whole, sensitivity

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
N, T, D, WORDS = 30, 5, 4, 9
IDS = RNG.integers(1, WORDS, size=(N, T))
MASK = np.arange(T) < RNG.integers(1, T + 1, size=(N, 1))
measure = functools.partial(sensitivity, key=KEY, repeats=3, batch_size=64)


class Pair(NamedTuple):
    image: np.ndarray
    side: np.ndarray


def test_side_information_reaches_the_model_unperturbed():
    """As the model of the image alone whose threshold differs from example to example."""
    images, side = RNG.normal(size=(N, 4, 4, 1)).astype("f4"), RNG.normal(size=N).astype("f4")
    w = RNG.normal(size=(4, 4, 1)).astype("f4")

    def score(w, x):
        return jnp.tensordot(x.image, w, 3) > x.side

    shift = np.einsum("nhwc,hwc->n", images, w) - side

    def folded(w, x):  # the same, the side information hidden in a pixel that has no weight
        return jnp.tensordot(x, w, 3) > x[:, 0, 0, 0]

    assert (shift > 0).any()
    assert (shift < 0).any()
    options = {"tokens": Patches(2), "noise": Gaussian(0.5)}
    est = measure(Partial(score, w), Pair(images, side), perturb="image", **options)
    assert 0 < est.value < 1
    hidden, v = images.copy(), w.copy()
    hidden[:, 0, 0, 0], v[0, 0, 0] = side, 0
    mended = hidden.copy()
    mended[:, 0, 0, 0] = images[:, 0, 0, 0]
    # All patches but the first, whose pixel the fold has moved.
    np.testing.assert_array_equal(
        est.rates[:, 1:],
        measure(
            Partial(lambda w, x: jnp.tensordot(x[0], w, 3) > x[1], w), (mended, side), perturb=0,
            **options,
        ).rates[:, 1:],
    )  # fmt: skip


class Reader(nnx.Module):
    """Layer-normalised embeddings, mean over the real ones, two logits."""

    traces = 0

    def __init__(self, rngs):
        self.table = nnx.Embed(WORDS, D, rngs=rngs)
        self.norm = nnx.LayerNorm(D, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(D, 2, rngs=rngs)

    def embed(self, batch):
        Reader.traces += 1
        vectors = self.dropout(self.norm(self.table(batch["ids"])))
        return {"tokens": vectors, "mask": batch["mask"]}

    def from_embeddings(self, batch):
        mask = batch["mask"][..., None]
        return self.head((batch["tokens"] * mask).sum(1) / mask.sum(1))


TEXT = {"ids": IDS, "mask": MASK}


def in_advance(reader):
    """The embeddings of all examples, by hand."""
    net = nnx.view(reader, deterministic=True, raise_if_not_found=False)
    return jax.tree.map(np.asarray, net.embed({k: jnp.asarray(v) for k, v in TEXT.items()}))


@pytest.mark.parametrize("tokens", [Positions("mask"), Whole("mask")])
def test_embedding_on_the_device_is_embedding_in_advance(tokens):
    """To the last flip, for every batch size; masks by name are masks by array."""
    reader = Reader(nnx.Rngs(0))
    options = {"perturb": "tokens", "noise": Gaussian(4.0)}
    est = measure(reader.from_embeddings, TEXT, embed=reader.embed, tokens=tokens, **options)
    kind = type(tokens)
    assert 0 < est.value < 1
    assert not reader.dropout.deterministic
    by_hand = sensitivity(
        reader.from_embeddings, in_advance(reader), key=KEY, repeats=3, tokens=kind(MASK),
        batch_size=7, **options,
    )  # fmt: skip
    np.testing.assert_array_equal(est.rates, by_hand.rates)
    if kind is Positions:
        np.testing.assert_array_equal(np.isnan(est.rates), ~MASK)


def test_new_weights_of_an_embedding_compile_nothing():
    def run(seed, x=TEXT):
        reader = Reader(nnx.Rngs(seed))
        return measure(
            reader.from_embeddings, x, embed=reader.embed, perturb="tokens",
            tokens=Positions("mask"), noise=Gaussian(4.0),
        )  # fmt: skip

    first = run(1)
    before = Reader.traces
    other = run(2)
    assert Reader.traces == before
    assert (first.rates != other.rates).any()
    # A plain function may hide its weights and is looked at again.
    reader = nnx.view(Reader(nnx.Rngs(1)), deterministic=True, raise_if_not_found=False)
    for _ in range(2):
        before = Reader.traces
        est = measure(
            reader.from_embeddings, TEXT, embed=lambda x: reader.embed(x), perturb="tokens",
            tokens=Positions("mask"), noise=Gaussian(4.0),
        )  # fmt: skip
        assert Reader.traces > before
    assert est.rates.shape == (N, T)


def test_whole_with_a_mask_leaves_the_rest_alone():
    """Read back from inside the model: real positions all move at once, padding never."""
    seen = []

    def model(x):
        jax.debug.callback(lambda a: seen.append(np.array(a)), x)
        return x.sum((1, 2))

    x = np.zeros((N, T, D), "f4")
    est = sensitivity(
        model, x, key=KEY, tokens=Whole(MASK), noise=Gaussian(1.0), repeats=2, batch_size=3 * N
    )
    jax.effects_barrier()
    rows = np.concatenate(seen)[: 3 * N].reshape(N, 3, T, D)  # behind them, those checked again
    assert est.rates.shape == (N, 1)
    assert (rows[:, 0] == 0).all()
    moved = rows[:, 1:] != 0
    assert (moved == MASK[:, None, :, None]).all()
    assert len(np.unique(rows[:, 1:][moved])) == moved.sum()


def test_both_numbers_at_once():
    """Def. 4.1 with the pair as one token, against the closed form of a linear score."""
    table = RNG.normal(size=(WORDS, D)).astype("f4")
    w = RNG.normal(size=(2, D)).astype("f4")
    pairs = RNG.integers(WORDS, size=(400, 2))
    est = sensitivity(
        Partial(lambda w, x: jnp.tensordot(x, w, 2), w), pairs, key=KEY, tokens=Whole(),
        embed=Partial(lambda table, pairs: table[pairs], table), noise=Gaussian(2.0), repeats=50,
    )  # fmt: skip
    margins = np.abs(np.einsum("ntd,td->n", table[pairs], w))
    phi = np.vectorize(lambda z: 0.5 * float(jax.scipy.special.erfc(z / np.sqrt(2))))
    exact = phi(margins / (np.sqrt(2.0) * np.linalg.norm(w)))
    assert abs(est.value - exact.mean()) < 4.5 * np.sqrt((exact * (1 - exact)).sum() / 50) / 400


def test_ids_beside_a_mask_and_bits_in_a_tuple():
    votes = RNG.normal(size=WORDS).astype("f4")

    def count(votes, x):
        return (votes[x["ids"]] * x["mask"]).sum(1)

    noise = Replacement(np.arange(WORDS))
    est = measure(Partial(count, votes), TEXT, perturb="ids", tokens=Positions("mask"), noise=noise)
    alone = measure(
        Partial(lambda votes, x: votes[x].sum(1), np.r_[votes, 0].astype("f4")),
        np.where(MASK, IDS, WORDS), tokens=Positions(MASK), noise=noise,
    )  # fmt: skip
    np.testing.assert_array_equal(est.rates, alone.rates)
    bits = np.sign(RNG.normal(size=(N, 6))).astype("f4")
    flips = measure(
        Partial(lambda w, x: x[0][:, 0] * w + x[1].sum(1), np.float32(9)),
        (np.ones((N, 1), "f4"), bits), perturb=1, tokens=Bits(), noise=Flip(),
        decision="sign",
    )  # fmt: skip
    assert flips.value == 0
    assert flips.forward_passes == N * 7


def test_inputs_that_do_not_fit_go_to_the_device_in_parts(monkeypatch):
    x = RNG.normal(size=(200, 6)).astype("f4")
    model = Partial(lambda w, x: x @ w, np.ones(6, "f4"))
    options = {"tokens": Bits(), "noise": Gaussian(1.0)}
    at_once = measure(model, x, **options)
    on_device = measure(model, jnp.asarray(x), **options)
    monkeypatch.setattr(jaxsens.placement, "RESIDENT_BYTES", 100)
    monkeypatch.setattr(jaxsens._run, "CHUNK_BYTES", 100)
    in_parts = measure(model, x, **options)
    np.testing.assert_array_equal(at_once.rates, in_parts.rates)
    np.testing.assert_array_equal(at_once.rates, on_device.rates)
