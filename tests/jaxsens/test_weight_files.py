"""Weights from outside: safetensors and .npz files that are damaged or hostile are one line."""

import json
import struct
import zipfile

import jax
import numpy as np
import pytest
from witnesses.small_weights import abstract, npz, refused, safetensors, vit_arrays

from jaxsens.checkpoints import CheckpointError
from jaxsens.weights.files import open_weights
from jaxsens.weights.pretrained import load_pretrained


def test_a_column_major_npz_is_read(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    stored = open_weights(npz(tmp_path / "w.npz", {"a": np.asfortranarray(array)}))["a"]
    assert stored.shape == (2, 3)
    np.testing.assert_array_equal(stored.read(), array)


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


@pytest.mark.parametrize("write", [safetensors, npz])
def test_random_damage_is_one_line_or_changes_nothing(tmp_path, write):
    """Bytes changed, lost or added in the header, or in the directory at the end of a zip."""
    model, arrays, rng = abstract("vit-ti16"), vit_arrays(), np.random.default_rng(0)
    path = write(tmp_path / f"w.{write.__name__}", arrays)
    whole, refusals = path.read_bytes(), []
    header = 8 + int.from_bytes(whole[:8], "little") if write is safetensors else len(whole)
    wanted = jax.tree.leaves(load_pretrained(model, path))
    for _ in range(200):
        damaged, at = bytearray(whole), int(rng.integers(max(0, header - 4000), header))
        length, added = rng.integers(0, 4, 2)
        damaged[at : at + length] = rng.bytes(added)
        path.write_bytes(damaged)
        try:
            found = load_pretrained(model, path)
        except CheckpointError as error:
            refusals.append(str(error))
            continue
        for leaf, original in zip(jax.tree.leaves(found), wanted, strict=True):
            np.testing.assert_array_equal(leaf, original)
    assert len(refusals) > 100
    assert all("\n" not in line and len(line) < 600 for line in refusals)


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
