import pytest
from mistakes import message_of

from serving.service.model_memory import GRAPH_FACTOR, WEIGHTS_FACTOR, ModelMemory, estimate, in_megabytes


def test_what_a_version_takes_follows_from_its_files(tmp_path):
    for path, size in (("saved_model.pb", 10), ("variables/variables.index", 3),
                       ("variables/variables.data-00000-of-00001", 1000), ("assets.extra/vocab.txt", 100)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(bytes(size))
    assert estimate(str(tmp_path)) == GRAPH_FACTOR * 10 + WEIGHTS_FACTOR * 1003
    assert estimate(str(tmp_path / "missing")) == 0


@pytest.mark.parametrize("num_bytes, said", [(0, "0 MB"), (1, "1 MB"), (1 << 20, "1 MB"),
                                             ((1 << 20) + 1, "2 MB")])
def test_megabytes(num_bytes, said):
    assert in_megabytes(num_bytes) == said


def test_no_more_is_reserved_than_there_is():
    memory = ModelMemory(2)
    memory.reserve(1 << 20)
    memory.reserve(1 << 20)
    assert message_of(memory.reserve, 1) == ("takes about 1 MB, and loaded versions take 2 MB of "
                                             "--max_models_memory_mb 2")
    memory.release(1 << 20)
    memory.reserve(1 << 20)
    ModelMemory().reserve(1 << 50)
