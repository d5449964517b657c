"""Builds pretraining samples from text: whole-word masking and sentence order, as sharded TFRecords.

Input is plain text in UTF-8, one sentence a line, a blank line between documents. The same input, flags and seed give the same
bytes, whatever the runner and the number of workers. A build that was interrupted goes on when the same command runs again.

  python -m etl.build_pretrain --runner DirectRunner
  python -m etl.build_pretrain --input_file 'corpus/*.txt' --vocab_file vocab.txt --max_seq_length 128
"""
import dataclasses
import functools
import hashlib
import json
import os
import platform
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import albert_config
from etl import manifest
from etl.chunks import ChunkJob, build_chunk, read_markers
from etl.command_line import UserError, flag, run
from etl.examples import pretraining_features
from etl.files import expand, fingerprint, read_json, sha256_of_file
from etl.instances import MASKINGS, SENTENCE_OBJECTIVES, InstanceConfig
from etl.progress import clock, progress
from etl.shards import PARTS, Extent, shard_name, shard_path, write_shard
from etl.sources import FileRange, plan_ranges
from etl.tokenization import TokenizerConfig, load_tokenizer

SHARD_BYTES = 256 << 20
RECORD_BYTES_PER_TEXT_BYTE = 1.7               # of one copy; only decides how many shards are made by default
COMPRESSION = 4
PARALLEL_BYTES = 8 << 20                       # below this, starting worker processes costs more than they save

_SAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sample", "*.txt")
_DEFAULTS = InstanceConfig()


@dataclass(frozen=True)
class BuildConfig:
    """The flags of this command."""
    input_file: Tuple[str, ...] = flag((_SAMPLE,), "text files: names or quoted globs, several")
    output_dir: str = flag("output/pretrain_data", "folder for the shards and manifest.json")
    vocab_file: str = flag(albert_config.vocab_path(), "WordPiece vocabulary, one entry a line")
    do_lower_case: bool = flag(True, "lower-case and strip accents; must fit the vocabulary")
    max_seq_length: int = flag(_DEFAULTS.max_seq_length, "tokens of a sample, [CLS] and [SEP] included")
    max_predictions_per_seq: Optional[int] = flag(
        None, "most tokens to predict in a sample; without it masked_lm_prob * max_seq_length")
    masked_lm_prob: float = flag(_DEFAULTS.masked_lm_prob, "share of tokens to predict")
    short_seq_prob: float = flag(_DEFAULTS.short_seq_prob, "chance that a copy of a document gets shorter samples")
    dupe_factor: int = flag(_DEFAULTS.dupe_factor, "copies of each document, each split and masked anew")
    random_seed: int = flag(_DEFAULTS.random_seed, "another seed gives other samples")
    masking: str = flag(_DEFAULTS.masking, "whole words, runs of whole words (ALBERT), or single tokens", MASKINGS)
    ngram: int = flag(_DEFAULTS.ngram, "longest run of words with --masking ngram")
    sentence_objective: str = flag(_DEFAULTS.sentence_objective,
                                   "order: two consecutive segments, half of them swapped; none: one segment",
                                   SENTENCE_OBJECTIVES)
    eval_fraction: float = flag(0.05, "share of documents held out for evaluation, in eval/")
    num_shards: Optional[int] = flag(None, "training shards; without it one for every 256 MB")
    range_bytes: Optional[int] = flag(
        None, "bytes a worker takes at a time; without it 1/64 of the input, within 1 and 64 MiB")
    runner: str = flag("DirectRunner", "Beam runner", ("DirectRunner",))
    direct_num_workers: int = flag(0, "processes of the DirectRunner; 0: one for each core, if the input is large enough")

    def __post_init__(self):
        for name in ("num_shards", "range_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError("%s must be at least 1, got %d" % (name, value))
        if not 0 <= self.eval_fraction < 1:
            raise ValueError("eval_fraction must be in [0, 1), got %s" % self.eval_fraction)
        if self.direct_num_workers < 0:
            raise ValueError("direct_num_workers must be at least 0, got %d" % self.direct_num_workers)
        self.instances                         # checks the rest

    @property
    def instances(self) -> InstanceConfig:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(InstanceConfig)}
        if self.max_predictions_per_seq is None:
            values["max_predictions_per_seq"] = max(1, int(round(self.masked_lm_prob * self.max_seq_length)))
        return InstanceConfig(**values)


@dataclass(frozen=True)
class Plan:
    """All that is known before the first worker starts."""
    job: ChunkJob
    ranges: Sequence[FileRange]
    inputs: Sequence[Dict[str, Any]]
    text_bytes: int
    vocab_size: int


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.build_pretrain", __doc__, BuildConfig, build, argv)


def build(config: BuildConfig) -> None:
    """Builds, checks, merges, and puts everything in place; raises UserError for input that cannot be used."""
    from etl.pipeline import RunnerConfig, run_map                # Beam takes a second to import: --help need not wait
    begin = time.time()
    plan = make_plan(config)
    job = plan.job
    workers = config.direct_num_workers or (os.cpu_count() if plan.text_bytes > PARALLEL_BYTES else 1) or 1
    runner = RunnerConfig(config.runner, workers)
    print("Building samples from %d file%s (%.1f MB) with %d process%s"
          % (len(plan.inputs), "s" * (len(plan.inputs) > 1), plan.text_bytes / 1e6, workers, "es" * (workers > 1)))
    os.makedirs(os.path.join(job.work_dir, "chunks"), exist_ok=True)
    with progress("samples", plan.text_bytes, lambda: _chunks_done(plan)):
        run_map("BuildChunks", functools.partial(build_chunk, job), list(enumerate(plan.ranges)), runner)
    markers = read_markers(job.work_dir, len(plan.ranges))
    counters = sum((Counter(marker["counters"]) for marker in markers), Counter())
    _check(config, counters)
    extents = [Extent(*extent) for marker in markers for extent in marker["extents"]]
    total = sum(extent.bytes for extent in extents)
    with progress("shards", total, lambda: _shards_done(job)):
        run_map("MergeShards", functools.partial(write_shard, job.work_dir, dict(job.num_shards)), _shard_list(job, extents), runner)
    result = _commit(config, plan, counters)
    _report(config, result, time.time() - begin)


def make_plan(config: BuildConfig) -> Plan:
    """Looks at the input and the vocabulary, and decides ranges, shards and the work folder. Writes nothing."""
    paths = expand(config.input_file, "input_file")
    inputs = [fingerprint(path) for path in paths]
    text_bytes = sum(entry["bytes"] for entry in inputs)
    tokenizer = TokenizerConfig(config.vocab_file, config.do_lower_case)
    vocab_size = len(load_tokenizer(tokenizer).vocabulary)
    ranges = plan_ranges(paths, config.range_bytes)
    records = text_bytes * config.dupe_factor * RECORD_BYTES_PER_TEXT_BYTE
    num_shards = config.num_shards or 1 + int(records / SHARD_BYTES)
    num_eval = 1 + int(records / config.dupe_factor * config.eval_fraction / SHARD_BYTES) if config.eval_fraction else 0
    job = ChunkJob("", tokenizer, config.instances, (("train", num_shards), ("eval", num_eval)), config.eval_fraction)
    decided_by = repr((job, ranges, inputs, sha256_of_file(config.vocab_file), _versions()))
    name = hashlib.sha256(decided_by.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    work_dir = os.path.abspath(os.path.join(config.output_dir, ".work", name))
    return Plan(dataclasses.replace(job, work_dir=work_dir), ranges, inputs, text_bytes, vocab_size)


def _shard_list(job: ChunkJob, extents: Sequence[Extent]) -> List[Tuple[str, int, List[Extent]]]:
    """Every shard with its extents; a shard that got no sample is written empty."""
    tasks: Dict[Tuple[str, int], List[Extent]] = {
        (part, index): [] for part, count in job.num_shards for index in range(count)}
    for extent in extents:
        tasks[extent.part, extent.shard].append(extent)
    return [(part, index, found) for (part, index), found in tasks.items()]


def _check(config: BuildConfig, counters: Counter) -> None:
    if not counters["documents"]:
        raise UserError("--input_file: no text in %s" % ", ".join(config.input_file))
    if not counters["train_samples"]:
        raise UserError("--input_file: %d documents gave no training sample: %d are too short for two segments, %d are held "
                        "out; give more text, or --eval_fraction 0"
                        % (counters["documents"], counters["documents_too_short"], counters["eval_documents"]))


def _commit(config: BuildConfig, plan: Plan, counters: Counter) -> manifest.Manifest:
    """Moves everything to its final name, the manifest last, so that a folder with a manifest is complete."""
    job, out = plan.job, config.output_dir
    shards = {part: [read_json(shard_path(job.work_dir, part, index, count) + ".json")
                     for index in range(count)] for part, count in job.num_shards}
    _remove_old(out)
    for part, count in job.num_shards:
        os.makedirs(os.path.join(out, os.path.dirname(shard_name(part, 0, 1))), exist_ok=True)
        for index in range(count):
            name = shard_name(part, index, count)
            os.replace(shard_path(job.work_dir, part, index, count), os.path.join(out, name))
            shards[part][index]["path"] = name
    shutil.copyfile(config.vocab_file, os.path.join(out, "vocab.txt"))
    instances = job.instances
    result = manifest.Manifest(
        train=tuple(manifest.Shard(**shard) for shard in shards["train"]),
        eval=tuple(manifest.Shard(**shard) for shard in shards["eval"]),
        max_seq_length=instances.max_seq_length, max_predictions_per_seq=instances.max_predictions_per_seq,
        tokenizer=dataclasses.replace(job.tokenizer, vocab_file="vocab.txt"), vocab_size=plan.vocab_size,
        vocab_sha256=sha256_of_file(config.vocab_file),
        features=pretraining_features(instances.max_seq_length, instances.max_predictions_per_seq),
        flags=dataclasses.asdict(config), inputs=tuple(plan.inputs), versions=_versions(), counters=dict(counters))
    manifest.write(out, result)
    shutil.rmtree(os.path.join(out, ".work"))
    return result


def _remove_old(folder: str) -> None:
    """Removes what an earlier build left: its manifest first, so that nothing claims the rest."""
    names = [manifest.FILE_NAME]
    for part in PARTS:
        below = os.path.dirname(shard_name(part, 0, 1))
        if os.path.isdir(os.path.join(folder, below)):
            names += [os.path.join(below, name) for name in os.listdir(os.path.join(folder, below))
                      if name.startswith("tf_examples-") and name.endswith(".tfrecord")]
    for name in names:
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))


def _chunks_done(plan: Plan) -> Tuple[int, str]:
    markers = read_markers(plan.job.work_dir, len(plan.ranges))
    samples = sum(marker["counters"].get(part + "_samples", 0) for marker in markers for part in PARTS)
    return sum(marker["bytes"] for marker in markers), "{:,} samples".format(samples)


def _shards_done(job: ChunkJob) -> Tuple[int, str]:
    done = [shard_path(job.work_dir, part, index, count)
            for part, count in job.num_shards for index in range(count)]
    sizes = [os.path.getsize(path) for path in done if os.path.exists(path)]
    return sum(sizes), "%d shards" % len(sizes)


def _versions() -> Dict[str, str]:
    import pkg_resources
    names = ("apache-beam", "jieba", "numpy", "google-crc32c")
    return dict({name: pkg_resources.get_distribution(name).version for name in names}, python=platform.python_version())


def _report(config: BuildConfig, result: manifest.Manifest, seconds: float) -> None:
    count = result.counters
    samples = count["train_samples"] + count.get("eval_samples", 0)
    slots = samples * result.max_seq_length
    rows = [
        ("documents", "{:,} ({:,} held out, {:,} too short)".format(
            count["documents"], count.get("eval_documents", 0), count.get("documents_too_short", 0))),
        ("sentences, words, tokens", "{:,}  {:,}  {:,}".format(count["sentences"], count["words"], count["tokens"])),
        ("unknown tokens", "{:.2%}".format(count.get("unknown_tokens", 0) / count["tokens"])),
        ("samples", "{:,} for training, {:,} held out".format(count["train_samples"], count.get("eval_samples", 0))),
        ("padding", "{:.1%} of {} tokens".format(1 - count["sample_tokens"] / slots, result.max_seq_length)),
        ("predicted tokens", "{:.1%}: {:.0%} [MASK], {:.0%} kept, {:.0%} random".format(
            count["predictions"] / count["sample_tokens"],
            *(count.get(kind + "_predictions", 0) / count["predictions"] for kind in ("masked", "kept", "random")))),
        ("swapped", "{:.1%}".format(count.get("swapped_samples", 0) / samples)),
        ("shards", "{} for training, {} held out, {:.1f} MB".format(
            len(result.train), len(result.eval), sum(shard.bytes for shard in result.train + result.eval) / 1e6)),
        ("time", clock(seconds)),
    ]
    for name, value in rows:
        print("  %-26s %s" % (name, value))
    print("Wrote %s\nNext: python -m estimator.pretrain --input_file %s" % (
        os.path.join(config.output_dir, manifest.FILE_NAME), config.output_dir))


if __name__ == "__main__":
    raise SystemExit(main())
