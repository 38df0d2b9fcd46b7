"""One description, one meaning: bad descriptions fail at construction, in one line."""

import dataclasses

import pytest

from theory.architecture import Architecture


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"readout": "cls"}, "unknown readout 'cls'.*flatten, mean, last"),
        ({"attention": "softmax"}, "no closed-form kernel"),
        ({"attention": "relu"}, "unknown attention"),
        ({"mlp": "tanh"}, "unknown mlp 'tanh'"),
        ({"layer_norm": True}, "unknown layer_norm"),
        ({"attention": "none"}, "empty blocks"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"bias": -0.1}, "standard deviation"),
        ({"bias": float("nan")}, "standard deviation"),
        ({"positions": float("inf")}, "standard deviation"),
        ({"embedding": False, "residual": True}, "residual=True .* needs embedding"),
        ({"embedding": False, "positions": 1.0}, "positions > 0 .* needs embedding"),
        ({"embedding": False, "layer_norm": "pre"}, "layer_norm='pre' .* needs embedding"),
    ],
)
def test_no_such_network(fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        Architecture(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [{"tokens": 2.0}, {"depth": True}, {"embedding": 1}, {"residual": "yes"}, {"bias": "1"}],
)
def test_wrong_type(fields):
    with pytest.raises(TypeError, match="must be"):
        Architecture(**fields)


def test_tokens_must_divide_d():
    assert Architecture(tokens=4).check(12) == 3
    with pytest.raises(ValueError, match="got d = 10, tokens = 4"):
        Architecture(tokens=4).check(10)
    with pytest.raises(TypeError, match="d must be an int"):
        Architecture().check(8.0)


def test_frozen_hashable_and_labelled():
    a = Architecture(tokens=2, mlp="relu", bias=0.5, residual=True, layer_norm="pre")
    assert hash(a) == hash(dataclasses.replace(a))
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.tokens = 3
    assert str(a) == "T=2, 1 x [linear attention + relu], bias 0.5, residual, pre-LN, flatten"


def test_plain_mlp_is_the_network_without_closing_dense():
    assert Architecture(attention="none", mlp="relu").plain_mlp
    assert not Architecture(mlp="relu").plain_mlp
    assert not Architecture(attention="none", mlp="relu", residual=True).plain_mlp
