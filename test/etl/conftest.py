"""Settings of hypothesis, and a vocabulary and a corpus small enough to read."""
import pytest
from hypothesis import settings

from etl import build_pretrain
from etl.text.tokenization import SPECIAL_TOKENS, Vocabulary, WordPieceTokenizer
from job_service import job_service as start_job_service

settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")

BUILD_FLAGS = ["--max_seq_length", "24", "--dupe_factor", "3", "--eval_fraction", "0.3", "--num_shards", "2"]
SENTENCES = ("我爱北京天安门。", "中华人民共和国成立了。", "他去图书馆看书。", "今天天气很好。",
             "我们明天去爬山。")


@pytest.fixture(scope="session")
def vocabulary():
    characters = sorted(set("".join(SENTENCES)))
    return Vocabulary(list(SPECIAL_TOKENS) + characters + ["play", "##ing", "##s", "ab"], "test")


@pytest.fixture(scope="session")
def tokenizer(vocabulary):
    return WordPieceTokenizer(vocabulary, do_lower_case=True)


@pytest.fixture(scope="session")
def vocab_file(vocabulary, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(vocabulary.tokens) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """20 documents of 3 to 6 sentences in two files."""
    folder = tmp_path_factory.mktemp("corpus")
    documents = ["\n".join(SENTENCES[(number + line) % 5] for line in range(3 + number % 4))
                 for number in range(20)]
    for name, part in (("a.txt", documents[:12]), ("b.txt", documents[12:])):
        (folder / name).write_text("\n\n".join(part) + "\n", encoding="utf-8")
    return str(folder / "*.txt")


@pytest.fixture(scope="session")
def build_flags():
    """What `built` was built with, besides its files."""
    return BUILD_FLAGS


@pytest.fixture(scope="session")
def built(tmp_path_factory, corpus, vocab_file):
    """The folder of a finished build of `corpus`. Tests that change it take a copy."""
    folder = str(tmp_path_factory.mktemp("built"))
    assert build_pretrain.main(
        ["--input_file", corpus, "--vocab_file", vocab_file, "--output_dir", folder] + BUILD_FLAGS) == 0
    return folder


@pytest.fixture(scope="session")
def job_service(tmp_path_factory):
    """Where an engine answers."""
    with start_job_service(str(tmp_path_factory.mktemp("job_service"))) as address:
        yield address
