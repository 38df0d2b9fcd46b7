"""Published layouts give the logits of PyTorch; every other file is one line and no model."""

import json
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxsens import models
from jaxsens.checkpoints import CheckpointError
from jaxsens.models.pretrained import load_pretrained
from jaxsens.weight_files import open_weights

SIZES = {"image_size": 16, "patch_size": 4, "channels": 3, "classes": 5}
WIDTHS = {
    "vit-ti16": {"depth": 2, "heads": 3, "dim": 12, "mlp_dim": 20},
    "convnextv2-atto": {"depths": (1, 2), "widths": (6, 10)},
}
IMAGENET = {"image_size": 224, "patch_size": 16, "channels": 3, "classes": 1000}
# Layout: our model, its statement in PyTorch, and what only that takes.
LAYOUTS = {
    "timm ViT": ("vit-ti16", "ViT", {}),
    "timm ConvNeXt, linear": ("convnextv2-atto", "ConvNeXtV2", {"convolutions": False}),
    "timm ConvNeXt, 1x1": ("convnextv2-atto", "ConvNeXtV2", {"convolutions": True}),
    "Facebook ConvNeXt": ("convnextv2-atto", "FacebookConvNeXtV2", {}),
}


def create(name, **more):
    return models.create(name, rngs=nnx.Rngs(0), **{**SIZES, **WIDTHS[name], **more})


def abstract(name, **more):
    return nnx.eval_shape(lambda: create(name, **more))


def safetensors(path, arrays, *, header=None, body=None, length=None):
    """A safetensors file; `header` edits its header, `body` and `length` replace the true ones."""
    content, entries = b"", {}
    for name, array in arrays.items():
        kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}.get(array.dtype.name, "I64")
        data = array.tobytes()
        entries[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    if header is not None:
        entries = header(entries)
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + (content if body is None else body(content)))
    return path


def npz(path, arrays):
    np.savez(path, **arrays)
    return path


def reference(layout, seed=0, sizes=SIZES, widths=None):
    """The PyTorch statement with generic weights, and its arrays."""
    torch = pytest.importorskip("torch")
    from witnesses import torch_timm
    from witnesses.torch_weights import randomise

    name, statement, more = LAYOUTS[layout]
    torch.manual_seed(seed)
    network = getattr(torch_timm, statement)(**sizes, **(widths or WIDTHS[name]), **more)
    randomise(network, seed)
    return network.eval(), {k: v.numpy() for k, v in network.state_dict().items()}


def agree(model, network, size, count=2):
    """Logits of both within 1e-4 of their scale, and not constant over images or classes."""
    import torch

    images = np.random.default_rng(1).normal(size=(count, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    got = np.asarray(jax.jit(lambda m, x: m(x))(model, images))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(got, wanted, atol=1e-4 * scale, rtol=0)
    assert np.ptp(wanted, axis=0).max() > 0.01 * scale
    assert np.ptp(wanted, axis=1).min() > 0.1 * scale


@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_are_those_of_pytorch(tmp_path, layout):
    network, arrays = reference(layout)
    shapes = abstract(LAYOUTS[layout][0])
    model = load_pretrained(shapes, safetensors(tmp_path / "w.safetensors", arrays))
    agree(model, network, SIZES["image_size"])
    same = load_pretrained(shapes, npz(tmp_path / "w.npz", arrays))
    for leaf, other in zip(jax.tree.leaves(model), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(leaf, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layout", "widths"),
    [
        ("timm ViT", {"depth": 12, "heads": 3, "dim": 192, "mlp_dim": 768}),
        ("timm ConvNeXt, 1x1", {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)}),
        ("Facebook ConvNeXt", {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)}),
    ],
)
def test_logits_are_those_of_pytorch_at_full_size(tmp_path, layout, widths):
    network, arrays = reference(layout, sizes=IMAGENET, widths=widths)
    path = safetensors(tmp_path / "weights.safetensors", arrays)
    name = LAYOUTS[layout][0]
    shapes = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **IMAGENET))
    agree(load_pretrained(shapes, path), network, 224)


@pytest.mark.parametrize(
    ("name", "arrays", "count"),
    [
        ("vit-l16", 296, 304_326_632),
        ("vit-ti16", 152, 5_717_416),
        ("convnextv2-tiny", 200, 28_635_496),
        ("convnextv2-atto", 140, 3_708_400),
    ],
)
def test_a_published_file_of_full_size_fits_by_its_shapes(tmp_path, name, arrays, count):
    """A sparse file with the published names and shapes: nothing of it is read but the header."""
    torch = pytest.importorskip("torch")
    from witnesses import torch_timm

    widths = {
        "vit-l16": {"depth": 24, "heads": 16, "dim": 1024, "mlp_dim": 4096},
        "vit-ti16": {"depth": 12, "heads": 3, "dim": 192, "mlp_dim": 768},
        "convnextv2-tiny": {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
        "convnextv2-atto": {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)},
    }[name]
    statement = torch_timm.ViT if name.startswith("vit") else torch_timm.ConvNeXtV2
    with torch.device("meta"):
        network = statement(**IMAGENET, **widths, convolutions=name.endswith("atto"))
    entries, end = {}, 0
    for key, tensor in network.state_dict().items():
        offsets = [end, end + 4 * tensor.numel()]
        entries[key] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
        end = offsets[1]
    assert (len(entries), end) == (arrays, 4 * count)
    # Something no array of the model has, after everything else: found only when all else fits.
    entries["zzz"] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    text = json.dumps(entries).encode()
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end + 4)
    shapes = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **IMAGENET))
    with pytest.raises(CheckpointError, match=r"has an array 'zzz' .*\(1 such arrays in all\)"):
        load_pretrained(shapes, path)


def test_the_given_model_is_left_alone_and_half_precision_is_exact(tmp_path):
    _, arrays = reference("timm ViT")
    given = create("vit-ti16")
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(given)]
    for dtype in (np.float16, jnp.bfloat16):
        coarse = {k: v.astype(dtype) for k, v in arrays.items()}
        model = load_pretrained(given, safetensors(tmp_path / "w.safetensors", coarse))
        np.testing.assert_array_equal(
            model.blocks[1].up.kernel[...], coarse["blocks.1.mlp.fc1.weight"].T.astype(np.float32)
        )
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("float32")}
    for leaf, old in zip(jax.tree.leaves(given), before, strict=True):
        np.testing.assert_array_equal(leaf, old)


def test_a_column_major_npz_is_read(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored = open_weights(npz(tmp_path / "w.npz", {"a": np.asfortranarray(array)}))["a"]
    assert stored.shape == (2, 3)
    np.testing.assert_array_equal(stored.read(), array)


def refused(path, message, name="vit-ti16", **more):
    with pytest.raises(CheckpointError, match=message) as error:
        load_pretrained(abstract(name, **more), path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def vit_arrays():
    """The arrays of a timm ViT without PyTorch."""
    dim, mlp = 12, 20
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 17, dim),
        "patch_embed.proj.weight": (dim, 3, 4, 4),
        "patch_embed.proj.bias": (dim,),
    }
    for i in range(2):
        for layer, (outputs, inputs) in {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (mlp, dim),
            "mlp.fc2": (dim, mlp),
        }.items():
            shapes[f"blocks.{i}.{layer}.weight"] = (outputs, inputs)
            shapes[f"blocks.{i}.{layer}.bias"] = (outputs,)
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.{leaf}": (dim,) for leaf in ("weight", "bias")}
    shapes |= {"norm.weight": (dim,), "norm.bias": (dim,), "head.weight": (5, dim)}
    shapes["head.bias"] = (5,)
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}


def changed(**arrays):
    """The ViT's arrays with some replaced, or removed where None."""
    merged = {**vit_arrays(), **{k.replace("__", "."): v for k, v in arrays.items()}}
    return {k: v for k, v in merged.items() if v is not None}


@pytest.mark.parametrize("write", [safetensors, npz])
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"head__bias": None}, "lacks the array 'head.bias'"),
        ({"cls_token": None}, "in a layout that is known: expected 'cls_token' among its arrays"),
        ({"blocks__0__ls1__gamma": np.ones(12, np.float32)}, "an array 'blocks.0.ls1.gamma' that"),
        ({"pos_embed": np.ones((1, 26, 12), np.float32)}, r"\(1, 26, 12\): expected \(1, 17, 12\)"),
        ({"head__weight": np.ones((12, 5), np.float32)}, r"\(12, 5\): expected \(5, 12\)"),
        ({"patch_embed__proj__weight": np.ones((12, 48), np.float32)}, r"expected \(12, 3, 4, 4\)"),
        ({"norm__bias": np.full(12, np.nan, np.float32)}, "NaN or inf in 'norm.bias'"),
        ({"norm__bias": np.full(12, -np.inf, np.float16)}, "NaN or inf in 'norm.bias'"),
        ({"norm__bias": np.zeros(12, np.int64)}, "as '?(I64|int64)'?: expected"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(tmp_path, write, arrays, message):
    refused(write(tmp_path / f"w.{write.__name__}", changed(**arrays)), message)


def test_a_file_of_another_size_or_family_is_one_line(tmp_path):
    path = safetensors(tmp_path / "w.safetensors", vit_arrays())
    refused(path, r"'head.bias' of shape \(5,\): expected \(7,\); create", classes=7)
    refused(path, "lacks the array 'blocks.2.", depth=3)
    refused(path, r"has an array 'blocks.1.attn.proj.bias' .*\(12 such", depth=1)
    refused(path, "of a ConvNeXtV2 in a layout .* expected 'stem.0.weight' or", "convnextv2-atto")
    with pytest.raises(TypeError, match="model is a MLP: expected a ViT or a ConvNeXtV2"):
        load_pretrained(models.create("mlp", rngs=nnx.Rngs(0), hidden=(3,), **SIZES), path)


def edit(name, **fields):
    return lambda entries: {**entries, name: {**entries[name], **fields}}


def shifted(offset):
    """Every array of the file begins `offset` bytes later, or earlier."""

    def move(entries):
        for entry in entries.values():
            entry["data_offsets"] = [n + offset for n in entry["data_offsets"]]
        return entries

    return move


def overlapping(entries):
    entries["norm.bias"]["data_offsets"] = entries["norm.weight"]["data_offsets"]
    return entries


def twice(entries):
    text = json.dumps(entries)
    return (text[:-1] + ', "cls_token": ' + json.dumps(entries["cls_token"]) + "}").encode()


DAMAGES = {
    "no JSON": ({"header": lambda e: b"{" * 9}, "its header cannot be read"),
    "deep JSON": ({"header": lambda e: b"[" * 10**6}, "its header cannot be read"),
    "no UTF-8": ({"header": lambda e: b"\xff\xfe\xfa"}, "its header cannot be read"),
    "a list": ({"header": lambda e: b"[]"}, "its header is a list, expected an object"),
    "a huge number": ({"header": lambda e: b"9" * 9999}, "its header cannot be read"),
    "no arrays": ({"header": lambda e: {}, "body": lambda b: b""}, "it holds no arrays"),
    "a duplicate": ({"header": twice}, "the key 'cls_token' appears twice"),
    "a long header": ({"length": 2**63}, "bytes and its header would end at"),
    "a shifted body": ({"header": shifted(4)}, "starts at byte 4 of the data, expected 0"),
    "a negative place": ({"header": shifted(-4)}, "shape and offsets of 'cls_token' do not agree"),
    "a huge place": ({"header": shifted(2**60)}, "shape and offsets of 'cls_token' do not agree"),
    "an overlap": ({"header": overlapping}, "'norm.bias' starts at byte"),
    "cut short": ({"body": lambda b: b[:-4]}, "bytes and .* follow the header|its arrays take"),
    "longer": ({"body": lambda b: b + b"\0"}, "its arrays take"),
    "another shape": ({"header": edit("cls_token", shape=[1, 2, 12])}, "of 'cls_token' do not"),
    "a shape of floats": ({"header": edit("cls_token", shape=[1.0, 1, 12])}, "do not agree"),
    "a shape of bools": ({"header": edit("cls_token", shape=[True, 1, 12])}, "do not agree"),
    "no shape": ({"header": edit("cls_token", shape=None)}, "do not agree"),
    "three offsets": ({"header": edit("cls_token", data_offsets=[0, 1, 2])}, "do not agree"),
    "another type": ({"header": edit("cls_token", dtype="F64")}, "'cls_token' as 'F64': expected"),
    "no type": ({"header": edit("cls_token", dtype=["F32"])}, r"as \"\['F32'\]\": expected"),
    "no entry": ({"header": lambda e: {**e, "cls_token": 3}}, "'cls_token' as 'None': expected"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_safetensors_file_is_one_line(tmp_path, damage):
    changes, message = DAMAGES[damage]
    refused(safetensors(tmp_path / "w.safetensors", vit_arrays(), **changes), message)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_a_cut_safetensors_file_is_one_line(tmp_path, size):
    path = safetensors(tmp_path / "w.safetensors", vit_arrays())
    path.write_bytes(path.read_bytes()[:size])
    refused(path, "is no whole safetensors file")


def test_a_header_beyond_the_bound_is_not_read(tmp_path):
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**40))
        file.truncate(2**41)  # sparse
    refused(path, f"its header takes {2**40} bytes, more than 16777216")


def member(content, name="cls_token.npy", *, path, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)
    return path


def npy(text, data=b""):
    text = text.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'cls_token.npy' cannot be read"),
        (b"\x93NUMPY\x03\x00" + b"\0" * 99, "expected version 1.0"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n"), "does not have the 4"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"cposix"), "as object"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}\n", b"0" * 8), "as float64"),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9**9,)}\n"), "cannot be read"),
        (npy("__import__('os').abort()\n"), "cannot be read"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}\n"),
            r"its shape is \(-1,\)",
        ),
    ],
)
def test_a_damaged_npz_member_is_one_line(tmp_path, content, message):
    path = member(content, path=tmp_path / "w.npz")
    with pytest.raises(CheckpointError, match=message) as error:
        open_weights(path)["cls_token"].read()
    assert "\n" not in str(error.value)


def test_a_damaged_npz_is_one_line(tmp_path):
    path = npz(tmp_path / "w.npz", vit_arrays())
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        refused(path, "is no whole .npz file")
    place = whole.index(vit_arrays()["cls_token"].tobytes())
    path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
    refused(path, "'cls_token.npy' cannot be read .*CRC")
    refused(member(b"", "../cls_token.txt", path=path), "appears twice or is no .npy file")
    content = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n", b"0000")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", content)
    refused(path, "'a.npy' appears twice")


def test_a_bomb_is_read_no_further_than_its_shape(tmp_path):
    """10 MB of zeros behind the header of one number: refused after one byte too many."""
    content = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n", b"\0" * 10**7)
    path = member(content, path=tmp_path / "w.npz", method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(CheckpointError, match="does not have the 4 bytes of its shape"):
        open_weights(path)["cls_token"].read()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.pkl", "w.ckpt"])
def test_a_pickle_is_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(b"cposix\nabort\n(tR.")
    refused(tmp_path / name, "is a pickle, which may run any code .*weights_only=True")


def test_what_is_no_file_is_one_line(tmp_path):
    refused(tmp_path / "none.safetensors", "there is no weights file")
    refused(tmp_path / ("x" * 300 + ".npz"), "there is no weights file")
    (tmp_path / "d.npz").mkdir()
    refused(tmp_path / "d.npz", "there is no weights file")
    (tmp_path / "w.txt").write_text("")
    refused(tmp_path / "w.txt", r"expected a name that ends in .safetensors or .npz")
