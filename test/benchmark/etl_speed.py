"""Text per second of the sample builder with one process and with two, beside a plain builder in the older
tools' way.

  python test/benchmark/etl_speed.py --data 'corpus/*.txt' --megabytes 100 --rounds 3

Repeats the text until it has the size asked for. Each round runs all builders one after another, so that its
ratios are of the same machine; a row for each, with CPU seconds of all its processes beside the wall clock.
The plain builder (plain_builder.py) holds everything in memory and gets --baseline_megabytes. Then where one
process spends its CPU time, stage by stage.
"""
import argparse
import glob
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from typing import DefaultDict, List, NamedTuple

import albert_config
import results
from etl.building.chunks import SAMPLES_AT_ONCE, ChunkJob, build_chunk, load_worker, read_markers
from etl.building.shards import write_extents, write_shard
from etl.building.sources import FileRange, read_documents
from etl.records.examples import serialize_examples
from etl.samples.draws import rng_for
from etl.samples.features import instance_features
from etl.samples.instances import InstanceConfig, mask_pairs, segment_pairs, tokenize_document
from etl.text.documents import Document
from etl.text.tokenization import TokenizerConfig

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POLL_SECONDS = 0.2
PROCESSES = {2: "two processes", 1: "one process"}


class Rates(NamedTuple):
    """KB of text a second of a run."""
    wall: float
    cpu: float                                 # a CPU-second of all its processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.path.join(ROOT, "etl", "sample", "*.txt"), help="text to repeat")
    parser.add_argument("--vocab_file", default=albert_config.vocab_path(), help="WordPiece vocabulary")
    parser.add_argument("--megabytes", type=float, default=100, help="text for etl.build_pretrain")
    parser.add_argument("--baseline_megabytes", type=float, default=2, help="text for the plain builder")
    parser.add_argument("--stage_megabytes", type=float, default=8, help="text for the account by stages")
    parser.add_argument("--max_seq_length", type=int, default=512)
    parser.add_argument("--dupe_factor", type=int, nargs="+", default=[10, 1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", help="file to add the rounds to, as JSON lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        texts = {size: repeat(arguments.data, size, folder) for size in
                 {arguments.megabytes, arguments.baseline_megabytes, arguments.stage_megabytes}}
        for dupe_factor in arguments.dupe_factor:
            compare(arguments, dupe_factor, texts[arguments.megabytes], texts[arguments.baseline_megabytes],
                    folder)
        for dupe_factor in arguments.dupe_factor:
            account(arguments, dupe_factor, texts[arguments.stage_megabytes], folder)


def repeat(pattern: str, megabytes: float, folder: str) -> str:
    """A file of so many megabytes: documents of all files in turn, over and over."""
    files = [open(path, "rb").read().strip(b"\n").split(b"\n\n") for path in sorted(glob.glob(pattern))]
    path = os.path.join(folder, "%g.txt" % megabytes)
    with open(path, "wb") as stream:
        for number in range(sys.maxsize):
            documents = files[number % len(files)]
            stream.write(documents[number // len(files) % len(documents)] + b"\n\n")
            if stream.tell() >= megabytes * 1e6:
                return path


def compare(arguments: argparse.Namespace, dupe_factor: int, text: str, baseline_text: str,
            folder: str) -> None:
    common = ["--max_seq_length", str(arguments.max_seq_length), "--dupe_factor", str(dupe_factor),
              "--eval_fraction", "0"]
    print("\nmax_seq_length %d, dupe_factor %d\n%5s %-14s %8s %8s %8s %10s %12s %12s" % (
        arguments.max_seq_length, dupe_factor, "round", "", "MB", "wall s", "CPU s", "KB/wall s",
        "times plain", "KB/CPU s"))
    found: DefaultDict[str, List[Rates]] = defaultdict(list)
    for number in range(1, arguments.rounds + 1):
        plain = [os.path.join(ROOT, "test", "benchmark", "plain_builder.py"), baseline_text,
                 arguments.vocab_file,
                 os.path.join(folder, "plain.tfrecord"), str(arguments.max_seq_length), str(dupe_factor)]
        found["plain"].append(row(number, "plain", plain, baseline_text))
        for workers, name in PROCESSES.items():
            out = os.path.join(folder, "out")
            build = ["-m", "etl.build_pretrain", "--input_file", text, "--output_dir", out,
                     "--vocab_file", arguments.vocab_file, "--direct_num_workers", str(workers)] + common
            found[name].append(row(number, name, build, text, found["plain"][-1].wall))
        two, one = (found[name][-1].wall for name in PROCESSES.values())
        print("%5d two processes against one: %.2f" % (number, two / one), flush=True)
    for name in PROCESSES.values():
        for unit in Rates._fields:
            results.append(arguments.results, "etl_speed", "dupe_factor %d, %s" % (dupe_factor, name),
                           "KB/%s-s" % unit, {"plain": [getattr(rates, unit) for rates in found["plain"]],
                                              results.OURS: [getattr(rates, unit) for rates in found[name]]})


def row(number: int, name: str, command: list, text: str, baseline: float = 0.0) -> Rates:
    """Runs a Python command and prints its row."""
    begin, size = time.time(), os.path.getsize(text)
    process = subprocess.Popen([sys.executable] + command, cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    seconds_of = {}
    while process.poll() is None:
        seconds_of.update(tree_seconds(process.pid))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(process.stdout.read().decode()[-2000:])
    wall, cpu = time.time() - begin, sum(seconds_of.values())
    rate = size / 1e3 / wall
    print("%5d %-14s %8.1f %8.1f %8.1f %10.0f %12s %12.0f" % (
        number, name, size / 1e6, wall, cpu, rate, "%.1f" % (rate / baseline) if baseline else "",
        size / 1e3 / cpu), flush=True)
    return Rates(rate, size / 1e3 / cpu)


def tree_seconds(root: int) -> dict:
    """CPU seconds so far of a process and of all below it."""
    parents, seconds = {}, {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as stream:
                fields = stream.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        process = int(path.split("/")[2])
        parents[process], seconds[process] = (int(fields[1]),
                                              (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    tree, grown = {root}, True
    while grown:
        below = {process for process, parent in parents.items() if parent in tree} - tree
        tree |= below
        grown = bool(below)
    return {process: seconds[process] for process in tree if process in seconds}


def account(arguments: argparse.Namespace, dupe_factor: int, text: str, folder: str) -> None:
    """CPU seconds of each stage in one process, on documents that are handed from stage to stage
    in memory."""
    spent: Counter = Counter()

    def timed(stage, function, *rest):
        begin = time.process_time()
        result = function(*rest)
        spent[stage] += time.process_time() - begin
        return result

    config = InstanceConfig(max_seq_length=arguments.max_seq_length, dupe_factor=dupe_factor)
    job = ChunkJob(os.path.join(folder, "stages-%d" % dupe_factor), TokenizerConfig(arguments.vocab_file),
                   config, (("train", 4), ("eval", 1)), eval_fraction=0.0, word_share=0.04)  # as with 100 MB
    worker, file_range = load_worker(job), FileRange(0, text, 0, os.path.getsize(text))
    documents = [document for document in timed("read", list, read_documents(file_range))
                 if isinstance(document, Document)]
    pairs, samples = [], 0
    for document in documents:
        timed("segment", worker.segmenter.word_offsets, "\n".join(document.sentences))
        timed("tokenize", worker.tokenizer.encode_sentences, document.sentences)
        tokenized = tokenize_document(document, worker.tokenizer, worker.segmenter)
        pairs += timed("pack", list, segment_pairs(tokenized, dupe_factor, config,
                                                   rng_for(1, document.offset)))
        while len(pairs) >= SAMPLES_AT_ONCE:
            batch, pairs = pairs[:SAMPLES_AT_ONCE], pairs[SAMPLES_AT_ONCE:]
            seeds = rng_for(1, samples).integers(1 << 62, size=len(batch)).astype("<u8")
            instances = timed("mask", mask_pairs, batch, seeds, config, worker.tokenizer.vocabulary)
            timed("encode", lambda: serialize_examples(instance_features(instances)))
            samples += len(batch)
    parts = sum(spent.values())
    timed("whole build of runs", build_chunk, job, (0, file_range))
    for shard in write_extents(job.work_dir, {"train": 4}, read_markers(job, 1)[0].extents):
        timed("merge", write_shard, job.work_dir, {"train": 4}, True, shard)
    spent["write, count and the rest"] = spent["whole build of runs"] - parts
    megabytes = os.path.getsize(text) / 1e6
    print("\nCPU seconds per MB of text, one process, dupe_factor %d, %.1f MB, %d samples"
          % (dupe_factor, megabytes, samples))
    for stage in ("read", "segment", "tokenize", "pack", "mask", "encode", "write, count and the rest",
                  "merge"):
        print("  %-28s %7.3f" % (stage, spent[stage] / megabytes))
    print("  %-28s %7.3f" % ("all", (spent["whole build of runs"] + spent["merge"]) / megabytes), flush=True)


if __name__ == "__main__":
    main()
