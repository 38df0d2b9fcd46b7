"""What the records of each experiment say of the papers' claims, on records made for it."""

import json

import pytest

from experiments.report import keep, rows
from experiments.run.evidence import AGREES, DISAGREES, ORDER, UNDECIDED, verdict

LABELS = {"vit": "ViT-small", "convmixer": "ConvMixer", "resnet18": "ResNet-18"}


def write(directory, experiment, result, lines, **config):
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"experiment": experiment, **config}))
    (directory / "result.json").write_text(json.dumps(result))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (directory / "metrics.jsonl").write_text(text)
    return directory


def told(directory):
    """Verdict of every claim that the record speaks of, by place, model, quantity, and measure."""
    kept = rows.kept(directory)
    assert kept.trouble == ""
    return {
        (e.claim.place, e.claim.model, e.claim.quantity, e.measured): verdict(e)
        for e in kept.evidence
    }


def point(value, sigma2=1.0, stderr=0.001):
    return {"sigma2": sigma2, "sensitivity": value, "sensitivity_stderr": stderr}


def images(
    directory, values, *, seeds=2, train=50_000, experiment="cifar", data="cifar10", **config
):
    """Networks that reach 100 % training accuracy at epoch 2 with these sensitivities."""
    final, lines = [], []
    for name, value in values.items():
        plain = name.removesuffix(" Adam")
        label = LABELS[plain] + (", Adam" if name != plain else "")
        for seed in range(seeds):
            base = {"model": name, "seed": seed}
            for epoch, accuracy in ((0, 0.1), (1, 0.6), (2, 1.0)):
                both = {f: value for f in ("sensitivity", "sensitivity_scatter")}
                errors = {f"{f}_stderr": 0.001 for f in both}
                lines.append({**base, "epoch": epoch, "train_accuracy": accuracy, **both, **errors})
            final.append(
                {**lines[-1], "label": label, "sweep": [point(value), point(9, 25.0)],
                 "scatter": [point(0.4 * value)], "whole": point(value, 0.025)}
            )  # fmt: skip
    about = {"name": data, "train": train}
    return write(directory, experiment, {"final": final, "data": about}, lines, **config)


def test_vision(tmp_path):
    found = told(images(tmp_path / "a", {"vit": 0.005, "convmixer": 0.08, "resnet18": 0.26}))
    pixels = "random pixels, as the published code"
    assert found[("Fig. 4", "ViT-small", "sensitivity", "patches")] == AGREES
    assert found[("Fig. 4", "ViT-small", "sensitivity", pixels)] == ORDER
    assert found[("Fig. 4", "ResNet-18", "sensitivity", "patches")] == ORDER
    assert found[("Table 4", "ResNet-18", "sensitivity", "patches")] == ORDER
    whole = "sensitivity, noise on the whole input"
    assert found[("Table 4", "ViT-small", whole, "")] == ORDER
    assert found[("Table 4", "ResNet-18", whole, "")] == DISAGREES
    assert found[("Fig. 4, 16", "ViTs", "sensitivity by epoch", "at the end")] == AGREES
    equal = "sensitivity at equal training accuracy"
    assert found[("Fig. 4", "ViTs", equal, "patches")] == AGREES
    assert found[("Fig. 4", "ViTs", equal, pixels)] == AGREES
    assert {key[0] for key in found} == {"Fig. 4", "Table 4", "Fig. 4, 16"}


@pytest.mark.parametrize(
    ("vit", "by_epoch", "equal"),
    [(0.02, AGREES, AGREES), (0.04, AGREES, UNDECIDED), (0.0805, UNDECIDED, UNDECIDED),
     (0.2, DISAGREES, DISAGREES)],
)  # fmt: skip
def test_an_order_of_magnitude(tmp_path, vit, by_epoch, equal):
    found = told(images(tmp_path / "a", {"vit": vit, "convmixer": 0.08}))
    assert found[("Fig. 4, 16", "ViTs", "sensitivity by epoch", "at the end")] == by_epoch
    place = ("Fig. 4", "ViTs", "sensitivity at equal training accuracy", "patches")
    assert found[place] == equal


@pytest.mark.parametrize(
    ("vit", "verdict"), [(0.04, AGREES), (0.0805, UNDECIDED), (0.2, DISAGREES)]
)
def test_networks_that_adam_trained_are_judged_apart(tmp_path, vit, verdict):
    """Beside those of SGD, whose claims they are no part of."""
    values = {"vit Adam": vit, "convmixer Adam": 0.08, "vit": 0.001, "convmixer": 0.08}
    place = images(tmp_path / "a", values, learning_rate=5e-4, halve_every=100)
    found = told(place)
    order = ("Fig. 14", "all", "order by sensitivity with Adam")
    pixels = "random pixels, as the published code"
    for how in ("patches, at the end", "patches, at 100.0 % training accuracy",
                f"{pixels}, at the end", f"{pixels}, at 100.0 % training accuracy"):  # fmt: skip
        assert found.pop((*order, how)) == verdict
    assert order not in {key[:3] for key in found}
    assert found[("Fig. 4", "ViTs", "sensitivity at equal training accuracy", "patches")] == AGREES
    (said,) = {e.differs for e in rows.kept(place).evidence if e.claim.place == "Fig. 14"}
    assert said.endswith(", rate 0.0005, halved every 100 epochs")


def test_what_differs_from_the_paper_is_said(tmp_path):
    kept = rows.kept(images(tmp_path / "a", {"convmixer": 0.08}, train=1000, data="photo-crops"))
    (said,) = {evidence.differs for evidence in kept.evidence}
    assert said == (
        "other data: photo-crops, 1,000 of 50,000 training images, 2 epochs, training accuracy "
        "100 %"
    )
    assert kept.size == "photo-crops, 1,000 training examples, 2 epochs, 2 seeds"


def test_of_several_strengths_the_one_nearest_to_the_papers_is_judged(tmp_path):
    """Strength 0 is plain training: it is not what the paper calls regularised."""
    final = [
        {"model": name, "arch": "vit", "intervention": kind, "level": level, "label": label,
         "seed": 0, "epoch": 3, "train_accuracy": 0.9, "sensitivity": value,
         "sensitivity_stderr": 0.001, "corruption_accuracy": accuracy, "shop": shop,
         "shop_stderr": 0.1}
        for name, kind, level, label, value, accuracy, shop in (
            ("vit", "none", None, "ViT-small", 0.1, 0.5, 39.0),
            ("vit regularisation 0", "regularisation", 0.0, "ViT-small, 0", 0.3, 0.2, 39.0),
            ("vit regularisation 0.9", "regularisation", 0.9, "ViT-small, 0.9", 0.3, 0.2, 1.0),
            ("vit regularisation 0.3", "regularisation", 0.3, "ViT-small, 0.3", 0.04, 0.9, 9.0),
        )
    ]  # fmt: skip
    about = {"name": "cifar10", "train": 50_000, "corrupted": 1000}
    directory = write(tmp_path / "a", "robustness", {"final": final, "data": about}, [])
    assert set(told(directory).values()) == {AGREES}
    assert len(told(directory)) == 4
    said = {e.differs for e in rows.kept(directory).evidence}
    assert any("regularisation 0.3 where the paper has 0.25" in one for one in said)


def test_sparse_parity(tmp_path):
    name, lines = "50000 points, batch 250, width 32, lr 0.001", []
    for epoch in range(40):
        value = 0.01 * min(epoch, 10)
        accuracy = 0.5 if epoch < 30 else 1.0
        lines.append({"model": name, "seed": 42, "epoch": epoch, "test_accuracy": accuracy,
                      "sensitivity": value, "sensitivity_stderr": 0.001})  # fmt: skip
    directory = write(
        tmp_path / "a", "sparse_parity", {"final": [lines[-1]]}, lines, bits=40, relevant=4,
        dropout=0.1, bits_per_token=1,
    )  # fmt: skip
    assert set(told(directory).values()) == {AGREES}
    assert len(told(directory)) == 3
    falling = [{**x, "sensitivity": 0.4 - x["sensitivity"]} for x in lines]
    other = write(
        tmp_path / "b", "sparse_parity", {"final": [falling[-1]]}, falling, bits=40, relevant=4
    )
    place = ("A.6", "two-layer transformer", "sensitivity while accuracy is 50 %", "")
    assert told(other)[place] == DISAGREES


def test_imagenet_has_nothing_to_say_of_random_weights(tmp_path):
    line = {"variance": 15.0, "sensitivity_stderr": 0.001}
    final = [
        {**line, "model": "vit-l16", "weights": "published", "sensitivity": 0.019},
        {**line, "model": "convnextv2-tiny", "weights": "published", "sensitivity": 0.034},
    ]
    about = {"split": "train", "source": "a folder"}
    found = told(write(tmp_path / "a", "imagenet", {"final": final, "data": about}, []))
    assert list(found.values()) == [AGREES] * 3
    for one in final:
        one["weights"] = "RANDOM"
    silent = rows.kept(write(tmp_path / "b", "imagenet", {"final": final, "data": about}, []))
    assert "nothing in it speaks of a claim" in silent.trouble


def test_the_committed_records_of_mnist_and_grokking():
    """At unequal accuracies nothing is decided; phases are those of the whole curves."""
    kept = rows.kept(keep.RECORDS / "mnist_4000")
    assert {verdict(e) for e in kept.evidence if "at the end" in e.measured} == {UNDECIDED}
    peak = ("Section 7", "one-layer transformer", "epoch at which sensitivity peaks",
            "both numbers at once")  # fmt: skip
    assert told(keep.RECORDS / "grokking_published")[peak] == AGREES
