import functools
import os

import pytest

from etl.command_line import UserError
from etl.pipeline import RunnerConfig, run_map

ONE_PROCESS = RunnerConfig("DirectRunner", 1)


def touch(folder, name):
    with open(os.path.join(folder, name), "a") as stream:
        stream.write("x")


def refuse(element):
    raise UserError("语料.txt: line %d: \"bad\" <b>\\ 'record'" % element)


def fill_disk(element):
    raise OSError(28, "No space left on device", "out/x")


def blunder(element):
    raise ZeroDivisionError("our own mistake")


def test_every_element_is_seen(tmp_path):
    names = ["%d" % number for number in range(20)]
    run_map("Touch", functools.partial(touch, str(tmp_path)), names, ONE_PROCESS)
    assert sorted(os.listdir(str(tmp_path))) == sorted(names)
    assert (tmp_path / "7").read_text() == "x"


def test_no_elements(tmp_path):
    run_map("Touch", functools.partial(touch, str(tmp_path)), [], ONE_PROCESS)
    assert os.listdir(str(tmp_path)) == []


def test_a_users_mistake_comes_back_word_for_word():
    with pytest.raises(UserError) as error:
        run_map("Refuse", refuse, [3], ONE_PROCESS)
    assert str(error.value) == "语料.txt: line 3: \"bad\" <b>\\ 'record'"


def test_a_full_disk_comes_back_as_a_users_mistake():
    with pytest.raises(UserError, match="No space left on device"):
        run_map("Fill", fill_disk, [1], ONE_PROCESS)


def test_our_own_mistake_stays_an_error():
    with pytest.raises(Exception) as error:
        run_map("Blunder", blunder, [1], ONE_PROCESS)
    assert not isinstance(error.value, UserError)
    assert "our own mistake" in str(error.value)
