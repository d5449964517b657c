"""Builds pretraining samples with whole-word masking and sentence-order labels, as sharded TFRecords.

Input is UTF-8 text, one sentence per line with a blank line between documents, or JSON lines. The same input,
flags and seed give the same bytes with any runner and any number of workers. An interrupted build resumes
when the same command runs again.

  python -m etl.build_pretrain --runner DirectRunner
  python -m etl.build_pretrain --input_file 'corpus/*.txt' --vocab_file vocab.txt --max_seq_length 128
  python -m etl.build_pretrain --runner FlinkRunner --flink_master 10.0.0.1:8081 --parallelism 64 \\
      --environment_type EXTERNAL \\
      --environment_config 127.0.0.1:50000 --input_file '/shared/corpus/*.txt' --output_dir /shared/out
  python -m etl.build_pretrain --input_file news.jsonl.gz --input_format jsonl --text_field body \\
      --masking ngram
"""
import contextlib
import functools
import os
import time
from collections import Counter
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import albert_config
from etl.beam.cluster import reach
from etl.beam.pipeline import RunnerConfig, run_map
from etl.building import report
from etl.building.chunks import (REASONS_SHOWN, Marker, build_chunk, marker_path, read_histograms,
                                 read_marker, read_markers)
from etl.building.plan import BuildConfig, BuildPlan, drop_other_builds, plan_build, work_folder
from etl.building.publish import (DEAD_LETTERS, publish, require_merged, require_places, require_replaceable,
                                  verify)
from etl.building.random_segments import candidates_path, collect_candidates, write_pools
from etl.building.shards import Extent, read_shard_marker, shard_path, write_extents, write_shard
from etl.building.sources import require_unchanged
from etl.building.work_files import require_own
from etl.common.command_line import UserError, run
from etl.common.files import await_files
from etl.common.progress_line import clock, progress_line
from etl.records import manifest
from etl.samples.histograms import sum_histograms
from etl.samples.instances import PARTS

UNKNOWN_SHARE = 0.1                            # of the tokens: above it, the vocabulary is questioned
MERGE_IN_PROCESS_BYTES = 256 << 20  # up to this, merging is done before Beam would have been loaded


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("etl.build_pretrain", __doc__, BuildConfig, build, argv)


def build(config: BuildConfig) -> None:
    """Builds, checks, merges, and moves everything into place; raises UserError for unusable input."""
    if config.verify:
        print(verify(config.output_dir))
        return
    begin = time.time()
    plan = plan_build(config)
    require_places(config, plan)
    require_replaceable(config, plan)
    runner = _runner(config, plan)
    print("Building samples from %d file%s (%.1f MB) %s"
          % (len(plan.inputs), "s" * (len(plan.inputs) > 1), plan.input_bytes / 1e6,
             "on " + config.cluster.place if runner.options else
             "with %d process%s" % (plan.num_workers, "es" * (plan.num_workers > 1))))
    for warning in plan.warnings:
        print("Warning: " + warning)
    longest = max(albert_config.load(name).max_position_embeddings for name in albert_config.shipped_names())
    if config.instances.max_seq_length > longest:
        print("Note: --max_seq_length is %d, but bundled configs have positions for %d tokens: the model "
              "needs another max_position_embeddings" % (config.instances.max_seq_length, longest))
    with work_folder(plan):
        _require_sound_work(plan)
        markers = _build_chunks(config, plan, runner)
        for path, before in plan.stamps.items():
            require_unchanged(path, before)    # also for changes between two ranges
        counters: Counter = sum((Counter(marker.counters) for marker in markers), Counter())
        _check(config, counters, [reason for marker in markers for reason in marker.bad_records])
        drop_other_builds(plan)
        _merge(plan, runner, [extent for marker in markers for extent in marker.extents])
        histograms = sum_histograms(read_histograms(plan.job.work_dir, index)
                                    for index in range(len(plan.ranges)))
        result = publish(config, plan, counters, histograms)
    _report(config, result, histograms, time.time() - begin)
    if os.path.isdir(plan.work_parent):
        print("Note: %s was kept: it holds files that no build wrote" % plan.work_parent)


def _require_sound_work(plan: BuildPlan) -> None:
    """Raises OSError if the work of an earlier run cannot be resumed: now, not hours later."""
    job = plan.job
    require_own(job.work_dir)
    read_markers(job, len(plan.ranges))
    for part, count in job.num_shards:
        for index in range(count):
            if os.path.exists(shard_path(job.work_dir, part, index, count) + ".json"):
                require_merged(plan, part, index, count, reads_it=True)


def _runner(config: BuildConfig, plan: BuildPlan) -> RunnerConfig:
    """Where to run; raises UserError when the engine does not answer."""
    options = config.cluster.beam_options(reach(config.cluster))
    return RunnerConfig(config.cluster.runner, plan.num_workers, plan.log_path, options,
                        plan.job.work_dir if options else None)


def _build_chunks(config: BuildConfig, plan: BuildPlan, runner: RunnerConfig) -> List[Marker]:
    """Text to sorted runs, range by range; returns the chunks' markers."""
    job, ranges = plan.job, list(enumerate(plan.ranges))
    if job.instances.sentence_objective == "next":
        collect = functools.partial(collect_candidates, job.work_dir, job.instances.random_seed,
                                    job.eval_fraction, job.text_format)
        run_map("CollectRandomSegments", collect, ranges, runner)
        await_files(candidates_path(job.work_dir, index) for index, _ in ranges)
        paths = [entry["path"] for entry in plan.inputs]
        sizes = write_pools(job.work_dir, paths, job.text_format, len(ranges))
        if sizes["train"] < 2:
            raise UserError("--sentence_objective next: second segments come from other documents, and the "
                            "training part holds %d; give more text, or --sentence_objective "
                            "order" % sizes["train"])
        if sizes["eval"] == 1:
            print("Warning: one document is held out, so there is none to draw second segments from: the "
                  "labels of held-out samples are all 0")
    seen: Dict[int, Tuple[int, int]] = {}
    with progress_line("samples", plan.input_bytes, lambda: _chunks_done(plan, seen)):
        run_map("BuildChunks", functools.partial(build_chunk, job), ranges, runner)
        await_files(marker_path(job.work_dir, index) for index, _ in ranges)
    return read_markers(job, len(ranges))


def _merge(plan: BuildPlan, runner: RunnerConfig, extents: Sequence[Extent]) -> None:
    """Sorted runs to shards."""
    job, total = plan.job, sum(extent.bytes for extent in extents)
    shards = write_extents(job.work_dir, dict(job.num_shards), extents)
    write = functools.partial(write_shard, job.work_dir, dict(job.num_shards), job.keep_duplicates)
    with progress_line("shards", total, lambda: _shards_done(plan)):
        if total > MERGE_IN_PROCESS_BYTES:
            run_map("MergeShards", write, shards, runner)
        else:
            for shard in shards:
                write(shard)
        await_files(path + ".json" for path in _shard_paths(plan))
    linked = sum(read_shard_marker(job.work_dir, part, index, count)["linked_bytes"]
                 for part, count in job.num_shards for index in range(count))
    if linked:
        print("Note: %.1f MB of %s are hard-linked elsewhere: their disk space was not freed while shards "
              "were merged" % (linked / 1e6, os.path.join(job.work_dir, "runs")))


def _check(config: BuildConfig, counters: Counter, reasons: Sequence[str]) -> None:
    """Refuses unusable input, before anything is written to the output folder."""
    bad, documents = counters["bad_records"], counters["documents"]
    if bad > config.max_bad_fraction * (bad + documents):
        raise UserError("%d of %d documents cannot be used, --max_bad_fraction is %s: %s"
                        % (bad, bad + documents, config.max_bad_fraction, "; ".join(reasons[:REASONS_SHOWN])))
    if not documents:
        raise UserError("--input_file: no text in %s" % ", ".join(config.input_file))
    if not counters["train_samples"]:
        raise UserError("--input_file: %d documents gave no training sample: %d are too short for two "
                        "segments, %d are held out; give more text, or --eval_fraction 0"
                        % (documents, counters["documents_too_short"], counters["eval_documents"]))


def _chunks_done(plan: BuildPlan, seen: Dict[int, Tuple[int, int]]) -> Tuple[int, str]:
    """`seen` is (bytes, samples) of each chunk that was found done, so that each marker is read only once."""
    for index in set(range(len(plan.ranges))) - set(seen):
        if os.path.exists(marker_path(plan.job.work_dir, index)):
            with contextlib.suppress(OSError):     # reported when the chunks are done
                marker = read_marker(plan.job, index)
                seen[index] = marker.bytes, sum(marker.counters.get(part + "_samples", 0) for part in PARTS)
    return sum(done for done, _ in seen.values()), "{:,} samples".format(
        sum(samples for _, samples in seen.values()))


def _shards_done(plan: BuildPlan) -> Tuple[int, str]:
    sizes = [os.path.getsize(path) for path in _shard_paths(plan) if os.path.exists(path)]
    return sum(sizes), "%d shards" % len(sizes)


def _shard_paths(plan: BuildPlan) -> List[str]:
    return [shard_path(plan.job.work_dir, part, index, count) for part, count in plan.job.num_shards
            for index in range(count)]


def _report(config: BuildConfig, result: manifest.Manifest, histograms: Mapping[str, Counter],
            seconds: float) -> None:
    count = Counter(result.counters)
    samples = count["train_samples"] + count["eval_samples"]
    kinds = ["{:.0%} {}".format(count[name + "_predictions"] / count["predictions"], shown) for name, shown in
             (("masked", "[MASK]"), ("kept", "kept"), ("random", "random"), ("permuted", "permuted"))
             if count[name + "_predictions"]]
    rows: List[Tuple[str, str]] = [
        ("documents", "{:,} ({:,} held out, {:,} too short, {:,} unusable)".format(
            count["documents"], count["eval_documents"], count["documents_too_short"], count["bad_records"])),
        ("sentences, words, tokens",
         "{:,}  {:,}  {:,}".format(count["sentences"], count["words"], count["tokens"])),
        ("unknown tokens", "{:.2%}".format(count["unknown_tokens"] / count["tokens"])),
        ("samples", "{:,} for training, {:,} held out".format(
            sum(shard.records for shard in result.train), sum(shard.records for shard in result.eval))),
        ("padding", "{:.1%} of {} tokens".format(
            1 - count["sample_tokens"] / (samples * result.max_seq_length), result.max_seq_length)),
        ("predicted tokens",
         "{:.1%}: {}".format(count["predictions"] / count["sample_tokens"], ", ".join(kinds))),
        ("shards", "{} for training, {} held out, {:.1f} MB".format(
            len(result.train), len(result.eval),
            sum(shard.bytes for shard in result.train + result.eval) / 1e6)), ("time", clock(seconds)),
    ]
    if config.instances.sentence_objective != "none":
        name = "swapped" if config.instances.sentence_objective == "order" else "random second segment"
        rows.append((name, "{:.1%}".format(count["label_1_samples"] / samples)))
        rows.append(("cut inside a sentence", "{:.1%} of the samples".format(count["cut_samples"] / samples)))
    if count["dropped_samples"]:
        rows.append(("dropped as repeated", "{:,} samples".format(count["dropped_samples"])))
    if count["bad_records"]:
        rows.append(("unusable documents", os.path.join(config.output_dir, DEAD_LETTERS)))
    for name, value in rows:
        print("  %-26s %s" % (name, value))
    if count["unknown_tokens"] > UNKNOWN_SHARE * count["tokens"]:
        print("Warning: {:.0%} of the tokens are [UNK], most often of {}: is {} a vocabulary for this text? "
              "python -m etl.build_vocab makes one of it".format(
                  count["unknown_tokens"] / count["tokens"],
                  " ".join(text for text, _ in histograms["unknown_texts"].most_common(5)),
                  config.tokenizer_config.vocabulary_file))
    held_out = sum(shard.records for shard in result.eval)
    if not held_out and config.eval_fraction:
        print("Note: of {:,} document{}, none is held out: there is nothing to evaluate on".format(
            count["documents"], "s" * (count["documents"] > 1)))
    print("Wrote %s\nLook at %s\nNext: python -m estimator.pretrain --input_file %s%s" % (
        os.path.join(config.output_dir, manifest.FILE_NAME),
        os.path.join(config.output_dir, report.FILE_NAME), config.output_dir,
        "" if held_out else " --do_eval false"))


if __name__ == "__main__":
    raise SystemExit(main())
