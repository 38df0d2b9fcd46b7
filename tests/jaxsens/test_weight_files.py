"""Weights from outside: safetensors and .npz files that are damaged or hostile are one line."""

import json
import os
import struct
import zipfile

import numpy as np
import pytest
from witnesses.small_weights import npz, refused, safetensors, vit_arrays

from jaxsens.weights import WeightsError
from jaxsens.weights.files import open_weights


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


DAMAGES = {
    "no JSON": ({"header": lambda e: b"{" * 9}, "invalid JSON in header"),
    "deep JSON": ({"header": lambda e: b"[" * 10**6}, "invalid JSON in header"),
    "deep metadata": (
        {"header": lambda e: b'{"__metadata__":{"a":' + b"[" * 10**6}, "invalid JSON in header"
    ),
    "no UTF-8": ({"header": lambda e: b"\xff\xfe\xfa"}, "invalid UTF-8 in header"),
    "a list": ({"header": lambda e: b"[]"}, "invalid JSON in header"),
    "a huge number": ({"header": lambda e: b"9" * 9999}, "invalid JSON in header"),
    "no arrays": ({"header": lambda e: {}, "body": lambda b: b""}, "holds no arrays"),
    "a long header": ({"length": 2**63}, "it has .* bytes, and its header would end at"),
    "a shifted body": ({"header": shifted(4)}, "invalid offset for tensor `cls_token`"),
    "a negative place": ({"header": shifted(-4)}, "invalid value: integer `-4`"),
    "a huge place": ({"header": shifted(2**60)}, "invalid offset for tensor `cls_token`"),
    "an overlap": ({"header": overlapping}, r"invalid offset for tensor `norm\."),
    "cut short": ({"body": lambda b: b[:-4]}, "of .* bytes; .* not fully covered"),
    "longer": ({"body": lambda b: b + b"\0"}, "of .* bytes; .* not fully covered"),
    "another shape": ({"header": edit("cls_token", shape=[1, 2, 12])}, "invalid shape, data type"),
    "no product": ({"header": edit("cls_token", shape=[2**63, 2**63])}, "overflow|invalid"),
    "axes without end": (
        {"header": edit("cls_token", shape=[12] + [1] * 10**6)}, "'cls_token' has 1000001 axes"
    ),
    "a shape of floats": ({"header": edit("cls_token", shape=[1.0, 1, 12])}, "floating point"),
    "a shape of bools": ({"header": edit("cls_token", shape=[True, 1, 12])}, "boolean"),
    "no shape": ({"header": edit("cls_token", shape=None)}, "invalid type: null"),
    "three offsets": ({"header": edit("cls_token", data_offsets=[0, 1, 2])}, "invalid length 3"),
    "another type": ({"header": edit("cls_token", dtype="F64", shape=[1, 1, 6])}, "as 'F64': expe"),
    "an unknown type": ({"header": edit("cls_token", dtype="X1")}, "unknown variant `X1`"),
    "no type": ({"header": edit("cls_token", dtype=["F32"])}, "invalid type: sequence"),
    "no entry": ({"header": lambda e: {**e, "cls_token": 3}}, "invalid type: integer `3`"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_safetensors_file_is_one_line(tmp_path, damage):
    changes, message = DAMAGES[damage]
    refused(safetensors(tmp_path / "w.safetensors", vit_arrays(), **changes), message)


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
        (b"\x93NUMPY\x03\x00" + b"\0" * 99, r"is of .npy version \(3, 0\); expected"),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n"),
            "is shorter than its header says: expected 4 bytes",
        ),
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
    with pytest.raises(WeightsError, match=message) as error:
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
    refused(path, "a.npy appears twice")


def test_a_bomb_is_read_no_further_than_its_shape(tmp_path):
    """10 MB of zeros behind the header of one number: refused after one byte too many."""
    content = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}\n", b"\0" * 10**7)
    path = member(content, path=tmp_path / "w.npz", method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(WeightsError, match="is longer than its header says: expected 4 bytes"):
        open_weights(path)["cls_token"].read()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.pkl", "w.ckpt"])
def test_a_pickle_is_never_opened(tmp_path, name):
    (tmp_path / name).write_bytes(b"cposix\nabort\n(tR.")
    refused(tmp_path / name, "is a pickle, which may run any code .*weights_only=True")


def test_what_is_no_file_is_one_line(tmp_path):
    refused(tmp_path / "none.safetensors", "there is no weights file")
    refused(tmp_path / ("x" * 300 + ".npz"), "there is no weights file")
    (tmp_path / "d.npz").mkdir()
    refused(tmp_path / "d.npz", "is a folder: name one weights file in it; it holds nothing")
    (tmp_path / "w.txt").write_text("")
    refused(tmp_path / "w.txt", r"expected a name that ends in .safetensors or .npz")
    (tmp_path / "w.h5").write_text("")
    refused(tmp_path / "w.h5", r"is no weights file but of Keras: expected a name")
    (tmp_path / "l.npz").symlink_to("/nowhere/x")
    refused(tmp_path / "l.npz", "is a link to /nowhere/x, which is not there")
    os.mkfifo(tmp_path / "p.npz")
    refused(tmp_path / "p.npz", "it is no file but a folder, a pipe or a device")


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Access is restricted</html>", "it is a web page, not the file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "it is a git-lfs pointer, .* git lfs"),
        (b"", "it is empty"),
    ],
)
def test_what_came_in_place_of_a_file_is_named(tmp_path, suffix, content, message):
    (tmp_path / f"w.{suffix}").write_bytes(content)
    refused(tmp_path / f"w.{suffix}", message)


def shards(directory, count=2):
    """A model in shards and its index."""
    items = list(vit_arrays().items())
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    places = {}
    for i, name in enumerate(names):
        part = dict(items[i::count])
        safetensors(directory / name, part)
        places |= dict.fromkeys(part, name)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index, [directory / name for name in names]


def test_a_model_in_shards_is_read_whole_or_not_at_all(tmp_path):
    index, files = shards(tmp_path)
    for path in (index, *files, tmp_path):
        found = open_weights(path)
        assert {k: v.shape for k, v in found.items()} == {
            k: v.shape for k, v in vit_arrays().items()
        }
    copy = files[0].rename(tmp_path / "model-00001-of-00002 (1).safetensors")
    assert len(open_weights(copy)) == len(vit_arrays())
    copy.rename(tmp_path / "away")
    for path in (index, files[1]):
        refused(path, "of a model in several shards, and 'model-00001-of-00002.* not lie beside it")
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(WeightsError, match="is in two shards"):
        open_weights(index)
    (tmp_path / "m-00001-of-99999.safetensors").write_bytes(b"")
    refused(tmp_path / "m-00001-of-99999.safetensors", "shard of 99999, more than 1000")


@pytest.mark.parametrize(
    "content",
    [b"", b"[" * 10**6, b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {"a": 3}}',
     b'{"weight_map": {"a": "../x-00001-of-00001.safetensors"}}', b"\xff", b"9" * 9999,
     b'{"weight_map": {"a": "/etc/passwd"}}'],
)  # fmt: skip
def test_a_damaged_index_is_one_line(tmp_path, content):
    (tmp_path / "m.safetensors.index.json").write_bytes(content)
    message = "is no index of shards|names shards that|does not lie beside"
    refused(tmp_path / "m.safetensors.index.json", message)


def test_a_folder_stands_for_its_one_file(tmp_path):
    safetensors(tmp_path / "vit.safetensors", vit_arrays())
    (tmp_path / "config.json").write_text("{}")
    assert len(open_weights(tmp_path)) == len(vit_arrays())
    safetensors(tmp_path / "other.safetensors", vit_arrays())
    refused(tmp_path, "name one weights file in it; it holds 'other.safetensors, vit.safetens")
    safetensors(tmp_path / "model.safetensors", vit_arrays())
    assert len(open_weights(tmp_path)) == len(vit_arrays())


def test_a_file_of_the_cache_needs_no_suffix_and_a_copy_keeps_its_own(tmp_path):
    safetensors(tmp_path / "0a1b", vit_arrays())
    (tmp_path / "model (1).safetensors").symlink_to(tmp_path / "0a1b")
    for name in ("0a1b", "model (1).safetensors"):
        assert len(open_weights(tmp_path / name)) == len(vit_arrays())


def test_tensors_that_share_memory_are_found_under_both_names(tmp_path):
    def alias(entries):
        return {**entries, "__metadata__": {"format": "pt", "tied": "norm.bias"}}

    path = safetensors(tmp_path / "w.safetensors", vit_arrays(), header=alias)
    found = open_weights(path)
    np.testing.assert_array_equal(found["tied"].read(), vit_arrays()["norm.bias"])
    assert "format" not in found


HEADERS = {
    "no token": "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
    "indents": "{\n  'a':\n 1}\n  'b'",
    "nested": "(" * 3000,
    "a huge number": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
    "a zero byte": "{'descr': '<f4'\0}",
    "another type": "{'descr': ['<f4'], 'fortran_order': False, 'shape': (1,)}",
    "a type of types": "{'descr': [('a', " * 100 + "'<f4'" + ")]" * 100 + "}",
    "no shape": "{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
    "no name": "{3: '<f4', 'fortran_order': False, 'shape': (1,)}",
    "Python 2": "{'descr': '<f4', 'fortran_order': False, 'shape': (1L, -1L)}",
    "not decimal": "{'descr': '<f4', 'fortran_order': False, 'shape': (1if 0else 2,)}",
    "axes without end": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 1000 + ")}",
    "a type of many bytes": "{'descr': '<V99999999', 'fortran_order': False, 'shape': (1,)}",
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_header_of_npy_that_is_no_header_is_one_line(tmp_path, header, version):
    text = HEADERS[header].encode()
    start = b"\x93NUMPY" + bytes((version, 0))
    content = start + struct.pack("<H" if version == 1 else "<I", len(text)) + text
    refused(member(content, path=tmp_path / "w.npz"), "'cls_token.npy' cannot be r|expected float3")
