import pickle

import pytest

from estimator.tools.tag_outputs import TagOutputs, read
from etl.common.command_line import UserError


@pytest.mark.parametrize("text", ['{"O": 1, "B-x": 4, "I-x": 2, "X": 3}', "O 1\nB-x\t4\n\nX 3\nI-x 2\n"])
def test_outputs_by_json_and_by_lines(tmp_path, text):
    (tmp_path / "ids").write_text(text)
    assert read(str(tmp_path / "ids")) == TagOutputs(("x",), (1, 4, 2), ("X",))


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"O": 1, "B-x": 2}', "there is no I-x"),
        ('{"B-x": 1, "I-x": 2}', "there is no O"),
        ('{"O": 1}', "label .BIO.$"),
        ('{"O": 1, "B-x": 2, "I-x": 3, "S-x": 4}', "there is S-x"),
        ('{"O": 1, "B-x": 1, "I-x": 3}', "the same number"),
        ('{"O": "1"}', "O: wanted a whole number from 0, got '1'"),
        ("O 1\nB-x", "line 2: wanted a label and its number"),
    ],
)
def test_what_is_wrong_names_the_file(tmp_path, text, message):
    (tmp_path / "ids").write_text(text)
    with pytest.raises(UserError, match="ids: .*" + message):
        read(str(tmp_path / "ids"))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_not_read(tmp_path, protocol):
    (tmp_path / "label2id.pkl").write_bytes(pickle.dumps({"O": 1}, protocol))
    with pytest.raises(UserError, match="a pickle, which is not read"):
        read(str(tmp_path / "label2id.pkl"))
    with pytest.raises(UserError, match="--label2id: .*no such file"):
        read(str(tmp_path / "other"))
