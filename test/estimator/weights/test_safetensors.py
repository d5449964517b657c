import json
import struct

import numpy as np
import pytest

from estimator.weights import safetensors
from etl.common.command_line import UserError

ARRAYS = {"a.weight": np.array([[1, 2, 3], [4, 5, 6]], np.float32), "b": np.array([-0.5], np.float32)}


def content(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_the_bytes_of_a_file(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.write(str(path), ARRAYS)
    written = path.read_bytes()
    length, = struct.unpack("<Q", written[:8])
    assert length % 8 == 0
    assert json.loads(written[8:8 + length].decode()) == {
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [24, 28]}}
    assert written[8 + length:] == struct.pack("<7f", 1, 2, 3, 4, 5, 6, -0.5)


def test_a_transposed_array_comes_back(tmp_path):
    path = str(tmp_path / "model.safetensors")
    safetensors.write(path, {"t": ARRAYS["a.weight"].T})
    np.testing.assert_array_equal(safetensors.read(path)["t"], [[1, 4], [2, 5], [3, 6]])


def test_integers_are_left_out(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content({"position_ids": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]},
                              "x": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]}},
                             bytes(8) + struct.pack("<f", 2)))
    assert safetensors.read(str(path)) == {"x": 2.0}


@pytest.mark.parametrize("dtype, data", [
    ("F16", struct.pack("<2e", 1.5, -2)), ("BF16", b"\xc0\x3f\x00\xc0"),
    ("F64", struct.pack("<2d", 1.5, -2))])
def test_other_floating_point_numbers_become_float32(tmp_path, dtype, data):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content({"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, len(data)]}}, data))
    found = safetensors.read(str(path))["x"]
    assert found.dtype == np.float32 and found.tolist() == [1.5, -2]


class TestShards:

    @pytest.fixture
    def path(self, tmp_path):
        for number, name in enumerate(ARRAYS, 1):
            safetensors.write(str(tmp_path / ("model-%05d-of-00002.safetensors" % number)),
                              {name: ARRAYS[name]})
        self.write_index(tmp_path, {name: "model-%05d-of-00002.safetensors" % number
                                    for number, name in enumerate(ARRAYS, 1)})
        return tmp_path / "model.safetensors"

    @staticmethod
    def write_index(folder, places):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    def test_all_are_read(self, path):
        found = safetensors.read(str(path))
        assert set(found) == set(ARRAYS)
        np.testing.assert_array_equal(found["a.weight"], ARRAYS["a.weight"])

    @pytest.mark.parametrize("places, message", [
        ({"a.weight": "../x"}, "weight_map must name files beside it"), ([], "weight_map must name files"),
        ({"c": "model-00001-of-00002.safetensors"}, "its files hold no c"),
        ({"a.weight": "model-00003-of-00003.safetensors"}, "model-00003-of-00003.safetensors: no such file")])
    def test_an_index_of_what_is_not_there(self, path, places, message):
        self.write_index(path.parent, places)
        with pytest.raises(UserError, match=message):
            safetensors.read(str(path))


@pytest.mark.parametrize("written, message", [
    (b"", "not a safetensors file, or a damaged one of 0 bytes"),
    (b"no such format at all", "not a safetensors file, or a damaged one of 21 bytes"),
    (content([1]), "not a safetensors file"),
    (content({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(7)),
     "data from 0 to 8 lie outside"),
    (content({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, bytes(8)), "cannot reshape"),
    (content({"x": {"dtype": "F32", "shape": [2 ** 70], "data_offsets": [0, 8]}}, bytes(8)),
     "not a safetensors file"),
    (struct.pack("<Q", 1 << 63) + b"{}", "its header claims 9223372036854775808 bytes"),
    (content({"x": {"dtype": "F32", "shape": None, "data_offsets": [0, 8]}}, bytes(8)),
     "must be a list of sizes, got None"),
    (content({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}, bytes(8)),
     "must be a list of sizes, got"),
    (struct.pack("<Q", 150000) + b"[" * 150000, "lists and objects are nested more than 64 deep"),
    (struct.pack("<Q", 10 ** 6) + b"1" * 10 ** 6, "not a safetensors file"),
    (content({"x": {"dtype": "I8", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
     "wanted values of F32, F16, F64, BF16, got I8"),
    (content({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "xy"}, bytes(8)),
     "its arrays overlap"),
])
def test_a_file_that_is_none_is_refused(tmp_path, written, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(written)
    with pytest.raises(UserError, match=message) as caught:
        safetensors.read(str(path))
    assert str(caught.value).startswith(str(path))


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        safetensors.read(str(tmp_path / "none"))
