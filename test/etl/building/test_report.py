import os
import re

import pytest

from etl import build_pretrain
from etl.records import manifest


@pytest.fixture(scope="module")
def html(built):
    with open(os.path.join(built, "report.html"), encoding="utf-8") as stream:
        return stream.read()


def test_it_needs_nothing_else(html):
    assert html.startswith("<!DOCTYPE html>")
    assert not re.findall(r'(?:src|href)="(?!#)', html)


@pytest.mark.parametrize("text", [
    "Lengths of samples", "second segment", "swapped", "tokens to predict", "Positions of predicted tokens",
    "[MASK]", "too short: dropped", "unusable: dropped", "Lengths of words", "Most frequent words",
    "Text that the vocabulary lacks", "北京", "dupe_factor"])
def test_every_distribution_is_there(html, text):
    assert text in html


def test_numbers_are_the_manifests(html, built):
    found = manifest.read(built)
    assert ">{:,}<".format(sum(shard.records for shard in found.train)) in html
    assert ">{:,}<".format(found.counters["documents"]) in html


def test_samples_show_their_masks(html):
    samples = re.findall(r'<p class="sample".*?</p>', html)
    assert len(samples) == 3
    assert all('<mark class="' in sample and "[SEP]" in sample for sample in samples)


def test_a_build_of_one_segment(tmp_path, corpus, vocab_file, build_flags):
    flags = ["--input_file", corpus, "--vocab_file", vocab_file, "--output_dir", str(tmp_path),
             "--sentence_objective", "none"]
    assert build_pretrain.main(flags + build_flags) == 0
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "one segment" in html and "second segment" not in html


def test_most_documents_are_held_out_and_too_short(tmp_path, vocab_file, build_flags):
    (tmp_path / "text.txt").write_text(
        "".join("我爱北京。\n天安门%s\n\n" % ("好" * number) for number in range(6)) + "".join(
            "%s\n\n" % chr(0x4E00 + number) for number in range(40)), encoding="utf-8")
    flags = ["--input_file", str(tmp_path / "text.txt"), "--vocab_file", vocab_file, "--output_dir",
             str(tmp_path / "out")]
    assert build_pretrain.main(flags + build_flags + ["--eval_fraction", "0.5", "--random_seed", "1"]) == 0
    count = manifest.read(str(tmp_path / "out")).counters
    bars = re.findall(r'title="([^"]*)".*?class="num">([^<]*)<',
                      (tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert count["documents_too_short"] + count["eval_documents"] > count["documents"]
    assert {("training", str(count["train_documents"])), ("held out", str(count["eval_documents"])),
            ("of both, too short: dropped", "40")} <= set(bars)
