"""Attention and blocks against explicit loops over tokens, with padding and causal order.

And against PyTorch's own attention, whose answers are kept.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from witnesses import attention_cases
from witnesses.references import assert_sketch, manifest, reference, weights

from jaxsens.models.layers import Attention, Block

N, T, DIM, HEADS = 3, 5, 6, 2
PADDING = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
call = jax.jit(lambda layer, x, **how: layer(x, **how))


def generic(module, seed=0):
    """``module`` with every parameter a generic number."""
    rng = np.random.default_rng(seed)
    for _, variable in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        variable[...] = jnp.asarray(rng.normal(size=variable.shape), jnp.float32)
    return module


def vectors(seed=1, tokens=T):
    return np.random.default_rng(seed).normal(size=(N, tokens, DIM)).astype(np.float32)


def matrices(attention):
    """W_Q, W_K, W_V and their biases, one by one."""
    if attention.fused:
        kernels = np.split(np.asarray(attention.qkv.kernel[...], np.float64), 3, axis=1)
        biases = np.split(np.asarray(attention.qkv.bias[...], np.float64), 3)
    else:
        layers = (attention.query, attention.key, attention.value)
        kernels = [np.asarray(layer.kernel[...], np.float64) for layer in layers]
        biases = [np.asarray(layer.bias[...], np.float64) for layer in layers]
    return list(zip(kernels, biases, strict=True))


def by_loops(attention, x, memory, padding, kind, causal):
    """One query, one head, one key at a time."""
    (wq, bq), (wk, bk), (wv, bv) = matrices(attention)
    size = wq.shape[1] // HEADS
    mixed = np.zeros((*x.shape[:2], wq.shape[1]))
    for n in range(len(x)):
        for i in range(x.shape[1]):
            for h in range(HEADS):
                part = slice(h * size, (h + 1) * size)
                q = x[n, i] @ wq[:, part] + bq[part]
                seen = [
                    j for j in range(memory.shape[1]) if padding[n, j] and not (causal and j > i)
                ]
                everything = kind == "softmax" and not seen  # then the mean of all values
                scores = {}
                for j in range(memory.shape[1]) if everything else seen:
                    score = q @ (memory[n, j] @ wk[:, part] + bk[part]) / size**0.5
                    scores[j] = 0.0 if everything else score
                if kind == "softmax":
                    total = sum(np.exp(s) for s in scores.values())
                    weights = {j: np.exp(s) / total for j, s in scores.items()}
                else:
                    weights = {j: max(s, 0.0) for j, s in scores.items()}
                for j, weight in weights.items():
                    mixed[n, i, part] += weight * (memory[n, j] @ wv[:, part] + bv[part])
    return mixed @ np.asarray(attention.out.kernel[...]) + np.asarray(attention.out.bias[...])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["softmax", "relu"])
def test_attention_is_the_loop_over_heads_queries_and_keys(kind, causal, fused):
    attention = generic(
        Attention(DIM, heads=HEADS, kind=kind, causal=causal, fused=fused, rngs=nnx.Rngs(0))
    )
    x = vectors()
    got = call(attention, x, padding=PADDING)
    expected = by_loops(attention, x, x, PADDING, kind, causal)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    last = attention(x, padding=PADDING, rows=slice(-2, None))
    np.testing.assert_allclose(last, expected[:, -2:], rtol=1e-4, atol=1e-4)


def test_keys_and_values_may_come_from_a_memory():
    attention = generic(Attention(DIM, heads=HEADS, head_dim=4, rngs=nnx.Rngs(0)))
    x, memory = vectors(tokens=2), vectors(seed=2)
    got = call(attention, x, memory=memory, padding=PADDING)
    expected = by_loops(attention, x, memory, PADDING, "softmax", False)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "norm"), [("softmax", "post"), ("relu", "pre")])
def test_padding_is_never_seen_nor_causally_what_follows(kind, norm):
    """Bit for bit, and with finite gradients where a row has no real token."""
    block = generic(
        Block(DIM, heads=HEADS, mlp_dim=4, kind=kind, norm=norm, causal=True, rngs=nnx.Rngs(0))
    )
    x, noise = vectors(), 100 * vectors(seed=3)
    before = np.asarray(call(block, x, padding=PADDING))
    padded = np.where(PADDING[..., None], x, noise)
    after = np.asarray(call(block, padded, padding=PADDING))
    np.testing.assert_array_equal(after[PADDING], before[PADDING])
    assert np.isfinite(after).all()
    later = x.copy()
    later[:, 3:] = noise[:, 3:]
    np.testing.assert_array_equal(call(block, later)[:, :3], call(block, x)[:, :3])
    gradient = jax.jit(jax.grad(lambda x: (block(x, padding=PADDING) ** 2).sum()))(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("kind", ["softmax", "relu"])
def test_dropout_falls_on_the_weights_and_keeps_their_mean(kind):
    attention = generic(Attention(DIM, heads=HEADS, kind=kind, dropout=0.5, rngs=nnx.Rngs(0)))
    x = vectors()
    draw = jax.jit(jax.vmap(lambda key: attention(x, rngs=nnx.Rngs(dropout=key))))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    exact = call(nnx.view(attention, deterministic=True), x)
    error = found.std(axis=0) / len(found) ** 0.5
    assert (np.abs(found.mean(axis=0) - exact) < 5 * error + 1e-5).all()
    assert (error > 0).all()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kind": "linear"}, "attention is 'linear': expected one of softmax, relu"),
        ({"heads": 4}, "dim 6 does not divide into 4 heads"),
    ],
)
def test_attention_refuses_in_one_line(how, said):
    with pytest.raises(ValueError, match=said):
        Attention(DIM, **{"heads": HEADS, "rngs": nnx.Rngs(0), **how})


@pytest.mark.parametrize("case", attention_cases.CASES)
def test_attention_is_that_of_pytorch(case):
    padding, causal, other = attention_cases.CASES[case]
    attention = Attention(DIM, heads=HEADS, causal=causal, fused=True, rngs=nnx.Rngs(0))
    arrays = weights(manifest("attention"))
    for layer, name in ((attention.qkv, "in_proj_"), (attention.out, "out_proj.")):
        layer.kernel[...] = arrays.pop(f"{name}weight").T
        layer.bias[...] = arrays.pop(f"{name}bias")
    assert not arrays
    x = attention_cases.vectors("x")
    more = {"padding": attention_cases.PADDING} if padding else {}

    @jax.jit
    def squares(x):
        # The memory is the given one, or x itself as in PyTorch's statement.
        given = {"memory": attention_cases.vectors("memory")} if other else {}
        out = attention(x, **given, **more)
        return (out**2).sum(), out

    (_, out), gradient = jax.value_and_grad(squares, has_aux=True)(x)
    np.testing.assert_allclose(out, reference(f"attention {case}/output"), rtol=1e-4, atol=1e-5)
    assert_sketch(gradient, reference(f"attention {case}/gradient"))
