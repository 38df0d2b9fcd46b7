"""What cannot be is one line and exit 2, before anything is written: every experiment's options."""

import pytest
from witnesses import small_runs
from witnesses.commands import execute, one_line

from experiments import svhn

POSITIVE = "must be finite and greater than 0, got"
ERRORS = {
    "mnist": [
        ("--nonsense 1", "--nonsense"),
        ("--epochs ten", "--epochs"),
        ("--epochs 0", "--epochs must be at least 1, got 0"),
        ("--smoke --epochs 0", "--epochs must be at least 1, got 0"),
        ("--every -1", "--every must be at least 1, got -1"),
        ("--seeds 0", "--seeds must be at least 1, got 0"),
        ("--seed -1", "--seed must lie between 0 and"),
        ("--seed 4294967296", "--seed must lie between 0 and"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--batch-size 4001", "--batch-size must be at most 4000, the number of training images"),
        ("--repeats 0", "--repeats must be at least 1, got 0"),
        ("--curve-tokens 0", "--curve-tokens must be at least 1, got 0"),
        ("--curve-tokens 17", "--curve-tokens must be at most 16, got 17"),
        ("--arch cnn", "--arch must be vit, mlp or all, got cnn"),
        *((f"--variance {v}", f"--variance {POSITIVE}") for v in ("0", "-1", "nan", "inf")),
        *((f"--learning-rate {v}", f"--learning-rate {POSITIVE}") for v in ("0", "nan", "inf")),
        ("--examples 0", "--examples must be at least 1, got 0"),
        ("--smoke --examples 0", "--examples must be at least 1, got 0"),
        ("--examples 4001", "--examples must lie between 1 and 4000, got 4001"),
        ("--sensitivity-examples 0", "--sensitivity-examples must be at least 1, got 0"),
        ("--sensitivity-examples 1", "sensitivity needs at least 2 images for its standard"),
        ("--examples 4 --batch-size 2", "sensitivity needs at least 2 images"),
        ("--sensitivity-examples 4001", "--sensitivity-examples must lie between 1 and 4000"),
        ("--data nowhere", "there is no file or directory nowhere"),
        ("--data=", "holds no MNIST that can be read"),
        ("--data foreign", "foreign holds no MNIST that can be read"),
        ("--data foreign/notes.txt", "foreign/notes.txt holds no MNIST that can be read"),
        ("--data cut", "cannot be read"),
        ("--resume", "--resume needs --out"),
        ("--resume --out foreign", "foreign holds no run"),
        ("--out foreign", "foreign exists; choose another --out, or --resume"),
        ("--out foreign/notes.txt/run", "cannot be written: Not a directory"),
        (f"--out {'x' * 300}", "cannot be written: File name too long"),
    ],
    "cifar": [
        ("--arch gpt", "--arch must be all, or some of vit, vit-simple, convmixer, resnet18"),
        ("--arch vit all", "densenet121, got vit all"),
        ("--arch", "--arch must be all, or some of"),
        ("--arch vit vit", "--arch names a value twice: vit vit"),
        ("--optimizer lion", "lion"),
        ("--optimizer", "--optimizer needs at least one"),
        ("--optimizer sgd sgd", "--optimizer names a value twice: sgd sgd"),
        ("--intervention prayer", "--intervention must be among none"),
        ("--regularisation-strength 1", "--regularisation-strength must be at least 0 and below 1"),
        ("--regularisation-strength -0.1", "must be at least 0 and below 1, got -0.1"),
        ("--regularisation-strength", "--regularisation-strength needs at least one value"),
        ("--copy-variance 0", f"--copy-variance {POSITIVE} 0.0"),
        ("--tokens pixels", "--tokens"),
        ("--arch resnet18 --depth 4", "--depth is for transformers; resnet18 is none"),
        ("--heads 4", "--heads is for transformers; convmixer is none: name one with --arch"),
        ("--arch vit --heads 0", "--heads must be at least 1, got 0"),
        ("--arch vit --depth 2 2", "--depth names a value twice: 2 2"),
        ("--sigma2 0", f"--sigma2 {POSITIVE} 0.0"),
        ("--sigma2 1 nan", f"--sigma2 {POSITIVE} nan"),
        ("--learning-rate -1", f"--learning-rate {POSITIVE} -1.0"),
        ("--until 0", "--until must be greater than 0, got 0.0"),
        ("--dtype float16", "float16"),
        ("--augmentation mixup", "mixup"),
        ("--batch-size 61", "--batch-size must be at most 60, the number of training images"),
        ("--curve-tokens 65 --batch-size 9", "--curve-tokens must be at most 64"),
        ("--examples 61", "--examples must lie between 1 and 60, got 61"),
        ("--test-examples 41", "--test-examples must lie between 1 and 40, got 41"),
        ("--data nowhere", "nowhere"),
    ],
    "synthetic": [
        ("--setting 3,1,5", "four integers"),
        ("--setting", "at least one setting"),
        ("--setting 3,1,5,16 3,1,5,16", "each of them once"),
        ("--setting 4,1,3,6", "n_s <= n_f"),
        ("--vocabulary 10", "at least 2m"),
        ("--vocabulary 0", "--vocabulary must be at least 1, got 0"),
        ("--learning-rate 0", f"--learning-rate {POSITIVE}"),
        ("--scale inf", f"--scale {POSITIVE}"),
        ("--curve-tokens 51", "--curve-tokens must be at most 50"),
        ("--examples 50", "--examples must be at least 2 and --batch-size"),
        ("--data tfds", "--data"),
    ],
    "sparse_parity": [
        ("--relevant 40", "--relevant must be at least 1 and below --bits (40), got 40"),
        ("--setting 1,2", "--setting takes training points"),
        ("--setting 10,20,32,1e-3,0", "needs 1 <= batch"),
        ("--setting 10,5,30,1e-3,0", "4 heads"),
        ("--setting 10,5,32,0,0", "a learning rate that is finite and greater than 0"),
        ("--setting 10,5,32,inf,0", "a learning rate that is finite and greater than 0"),
        ("--setting 10,5,32,1,0 10,5,32,1.0,0", "twice"),
        ("--setting", "at least one"),
        ("--bits-per-token 3", "--bits-per-token must divide"),
        ("--readout last", "--readout must be cls or mean"),
        ("--dropout 1", "--dropout must be in [0, 1), got 1"),
        ("--gain -1", f"--gain {POSITIVE}"),
        ("--samples 1", "--samples must be at least 2"),
        ("--save-every 3 --every 2", "--save-every must be a multiple of --every (2), got 3"),
        ("--seeds 2", "--seeds"),
    ],
    "grokking": [
        ("--modulus 112", "odd prime"),
        ("--modulus 112", "112 = 2 * 56"),
        ("--modulus 2", "odd prime"),
        ("--save-every 15", "--save-every must be a multiple of --every"),
        ("--snapshot-every 0", "--snapshot-every must be a multiple"),
        ("--epochs 0", "--epochs must be at least 1"),
        ("--weight-decay -1", "--weight-decay must be finite and 0 or more"),
        ("--variance inf", f"--variance {POSITIVE}"),
        ("--learning-rate inf", f"--learning-rate {POSITIVE}"),
        ("--beta2 1", "--beta2 must lie between"),
        ("--data tfds", "--data"),
    ],
    "imagenet": [
        ("--arch vit", "--arch must be vit-l16, convnextv2-tiny, vit-ti16, convnextv2-atto"),
        ("--seed -1", "--seed must lie between 0 and"),
        *((f"--{name} 0", f"--{name} must be at least 1, got 0")
          for name in ("repeats", "patch-size", "batch-size", "tokens-per-example")),
        *((f"--variance {v}", f"--variance {POSITIVE}") for v in ("0", "-1", "nan", "inf")),
        ("--variance 1 2 1", "--variance must be numbers that differ"),
        ("--variance", "--variance"),
        ("--patch-size 15", "--patch-size must divide the 32 pixels of vit-ti16, got 15"),
        ("--tokens-per-example 5", "must be at most the 4 patches of an image for vit-ti16"),
        ("--image-size 224", "weights of vit-ti16 are published for images of 32, not 224"),
        ("--examples 1", "--examples must lie between 2 and 10, the number of images, got 1"),
        ("--examples 11", "--examples must lie between 2 and 10, the number of images, got"),
        ("--weights none.npz", "there is no weights file none.npz"),
        ("--weights foreign/notes.txt", "is no weights file: expected a name"),
        ("--weights w.pth", "w.pth is a pickle, which may run any code"),
        ("--weights cut.npz", "cut.npz is no whole .npz file"),
        ("--weights x.npz --arch all", "--weights PATH is of one network: name it with"),
        ("--data nowhere", "there is no file or directory nowhere"),
        ("--data few.zip --split val", "few.zip has not all classes in val (3 folders)"),
        ("--data few.zip", "few.zip holds no train/"),
        ("--dtype float16", "--dtype"),
    ],
    "length_scaling": [
        ("--lengths 4 0", "--lengths must be at least 1, got 0"),
        ("--lengths 4 4", "--lengths names a value twice: 4 4"),
        ("--lengths 5000", "--lengths must be at most 4096, got 5000"),
        ("--functions parity or", "--functions or is none of parity, majority, first, mean"),
        ("--functions random --lengths 31", "counted up to n = 30, got --lengths 31"),
        ("--functions foreign/none.npy", "foreign/none.npy cannot be read: No such file"),
        ("--functions nowhere:f", "--functions nowhere:f cannot be imported"),
        ("--functions math:sin", "--functions math:sin is no function of points (N, 4) in JAX"),
        ("--functions jax.numpy:square", "returned shape (2, 4) for points (2, 4)"),
        ("--functions jax.numpy:iscomplexobj", "returned bool; expected an array of 2 labels"),
        ("--width 10 --heads 4", "--width must be even and a multiple of --heads (4), got 10"),
        ("--exact 21", "--exact must be at most 20 (all 2^n strings are evaluated), got 21"),
        ("--batch-size 16777216 --seeds 4000", "--batch-size 16777216 would take"),
        ("--noise 0", f"--noise {POSITIVE}"),
        ("--noise-kind uniform", "--noise-kind"),
        ("--save-every 150", "--save-every must be a multiple of --every (100), got 150"),
    ],
    "length_scratchpad": [
        ("--width 7", "--width must be even and a multiple of --heads (2), got 7"),
        ("--heads 3", "--width must be even and a multiple of --heads (3), got 32"),
        ("--lengths 0", "--lengths must be at least 1, got 0"),
        ("--batch-size 0", "--batch-size must be at least 1, got 0"),
        ("--lengths 4000", "GiB"),
    ],
    "length_tradeoff": [
        ("--decay 0.4 0.1", "--decay must be two numbers, the lower first, got 0.4 0.1"),
        ("--rate 1e-3", "--rate must be two numbers, the lower first, got 0.001"),
    ],
    "length_dynamics": [
        ("--decays", "--decays needs at least one value"),
        ("--decays -1", "--decays must be finite and 0 or more, got -1.0"),
        ("--bits 0", "--bits must be at least 1, got 0"),
    ],
    "length_generalisation": [
        ("--bits 13", "--bits must be at most 12 (whole cubes are evaluated), got 13"),
        ("--strings 2000", "--strings must be at most 2^10 = 1024, got 2000"),
        ("--complete 300", "--complete must be among --strings"),
    ],
    "length_memorisation": [
        ("--bits 5 --strings 40", "--strings must be at most 2^5 = 32, got 40"),
        ("--width 20", "--width 20 does not divide into --heads 8"),
        ("--network gru", "--network must be transformer or lstm, got 'gru'"),
        ("--every 30", "--save-every must be a multiple of --every (30), got 100"),
    ],
    "robustness": [
        ("--severity 0", "--severity must be at least 1, got 0"),
        ("--severity 6", "--severity must be at most 5, got 6"),
        ("--corruptions fog mist", "common, or some of gaussian_noise, shot_noise"),
        ("--corruptions fog fog", "--corruptions names a value twice"),
        ("--intervened gpt", "--intervened must be among vit, "),
        ("--arch convmixer --intervention regularisation", "names none of --arch convmixer"),
        ("--token-size 5", "--token-size 5: Patches(5) does not divide images of 32 x 32"),
        ("--corrupted-examples 41", "--corrupted-examples must lie between 1 and 40, got 41"),
        ("--flat-examples 1", "--flat-examples must be at least 2, got 1"),
        ("--runs nowhere", "there is no nowhere/config.json"),
        ("--runs foreign", "there is no foreign/config.json"),
        ("--published nowhere --task svhn", "--published is for --task cifar"),
        ("--published nowhere --corrupted-examples 9", "--published has all test images"),
        ("--published nowhere.tar", "cannot be read as a tar: there is no such file"),
    ],
    "flatness": [
        ("--variant old", "--variant"),
        ("--radius 0", f"--radius {POSITIVE} 0.0"),
        ("--hessian-examples -1", "--hessian-examples must be at least 0, got -1"),
    ],
    "priors": [
        ("--width 10 --heads 4", "--width 10 does not divide into --heads 4"),
        ("--start normal", "--start must be gaussian, uniform or xavier"),
        ("--networks 1", "--networks"),
    ],
    "known_sensitivity": [
        ("--target xor", "--target must be majority, tribes, parity3 or random, got 'xor'"),
        ("--strength 1", "--strength must be at least 0 and below 1, got 1.0"),
        ("--flip 0.5", "--flip must be above 0 and below 0.5, got 0.5"),
        ("--bits 4 --batch-size 9", "--batch-size must be at most 8, the number of training"),
    ],
}  # fmt: skip
BASE = {
    "mnist": "--data embedded",
    "cifar": "--data {colour}",
    "robustness": "--data {colour} --batch-size 9 --sensitivity-examples 4",
    "flatness": "--data {colour}",
    "imagenet": "--arch vit-ti16 --data embedded --examples 5 --weights random",
}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [(name, options, message) for name, rows in ERRORS.items() for options, message in rows],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    colour, tmp_path, monkeypatch, capsys, name, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08")
    if name == "imagenet":
        (tmp_path / "w.pth").write_text("")
        (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
        small_runs.small_imagenet.tree(tmp_path / "few.zip", count=3)
    before = sorted(tmp_path.rglob("*"))
    words = [*BASE.get(name, "").format(colour=colour).split(), *options.split()]
    with small_runs.surroundings(name):
        assert message in one_line(small_runs.MODULES[name], *words, capsys=capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("small")
def test_a_smoke_run_of_pretrained_networks_takes_no_weights(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("--smoke", "--weights", "x.npz", "--arch", "vit-ti16")
    assert "--smoke measures random" in one_line(
        small_runs.MODULES["imagenet"], *words, capsys=capsys
    )


def test_images_of_another_size_are_one_line(grey, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    one_line(svhn, "--data", grey, capsys=capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["cifar", "grokking"])
def test_help_groups_say_every_option_once(name, capsys):
    assert execute(small_runs.MODULES[name], "--help") == 0
    shown = capsys.readouterr().out
    assert ("--data" in shown) == (name == "cifar")
    for option in ("--out", "--smoke", "--resume", "--seeds", "--epochs"):
        assert option in shown
