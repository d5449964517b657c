"""Finished shards → their final names, the manifest last; and the verification of a build."""
import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Pattern

from etl.building import report
from etl.building.chunks import dead_letters_path, versions
from etl.building.plan import BuildConfig, BuildPlan, remove_lock
from etl.building.shards import read_shard_marker, shard_name, shard_path
from etl.building.work_files import damaged, remove_work
from etl.common.command_line import UserError, flags_of
from etl.common.files import atomic_write, copy, open_regular, require_file, sha256_of_file, sync_folder
from etl.records import manifest
from etl.records.examples import deserialize_example, pretraining_features, read_frames
from etl.samples.instances import PARTS
from etl.text.tokenization import load_tokenizer

_SHARD_NAME = re.compile(r"tf_examples-\d{5,}-of-\d{5,}\.tfrecord")
# As other tools call theirs: train.tfrecord, a.tf_record, part.tfrecords-00000-of-00010, a.tfrecord.gz.
_RECORDS_NAME = re.compile(r".*\.tf_?records?(?:-\d+-of-\d+)?(?:\.gz)?", re.IGNORECASE | re.DOTALL)

DEAD_LETTERS = os.path.join("dead_letters", "bad_records.jsonl")


def publish(config: BuildConfig, plan: BuildPlan, counters: Counter,
            histograms: Mapping[str, Counter]) -> manifest.Manifest:
    """Moves everything to its final name, the manifest last, so that a folder with a manifest is complete.

    An earlier build's files are removed just before: a build that fails leaves them untouched.
    """
    job, out = plan.job, config.output_dir
    shards: Dict[str, List[manifest.Shard]] = {part: [] for part in PARTS}
    moves = []
    for part, count in job.num_shards:
        for index in range(count):
            path, name = shard_path(job.work_dir, part, index, count), shard_name(part, index, count)
            marker = require_merged(plan, part, index, count)
            shards[part].append(manifest.Shard(name, marker["records"], marker["bytes"], marker["sha256"]))
            counters["dropped_samples"] += marker["dropped"]
            moves.append((path, os.path.join(out, name)))
    _remove_old(out, nothing_moved=all(os.path.exists(path) for path, _ in moves))
    for path, final in moves:
        os.makedirs(os.path.dirname(final), exist_ok=True)
        if os.path.exists(path):               # otherwise an interrupted publication has already moved it
            os.replace(path, final)
    vocab_name = _vocab_name(config)
    copy(plan.vocab_path, os.path.join(out, vocab_name))
    _gather_dead_letters(plan, os.path.join(out, DEAD_LETTERS))
    lengths = job.instances.max_seq_length, job.instances.num_slots
    field = "spm_model_file" if config.spm_model_file else "vocab_file"
    result = manifest.Manifest(
        train=tuple(shards["train"]), eval=tuple(shards["eval"]),
        max_seq_length=lengths[0], max_predictions_per_seq=lengths[1],
        tokenizer=dataclasses.replace(job.tokenizer, **{field: vocab_name}), vocab_size=plan.vocab_size,
        vocab_sha256=sha256_of_file(plan.vocab_path),
        features=pretraining_features(*lengths, job.instances.token_boundary),
        flags=flags_of(config), inputs=tuple(plan.inputs), versions=versions(), counters=dict(counters))
    opened = dataclasses.replace(job.tokenizer, **{field: os.path.join(out, vocab_name)})
    report.write_report(out, dataclasses.replace(result, tokenizer=opened), histograms)
    manifest.write(out, result)
    sync_folder(out)
    remove_work(job.work_dir)
    remove_lock(plan.work_parent)
    return result


def require_places(config: BuildConfig, plan: BuildPlan) -> None:
    """Raises UserError if something is in the place of a file of the build: before the work, not after it."""
    names = [shard_name(part, index, count) for part, count in plan.job.num_shards for index in range(count)]
    for name in names + [manifest.FILE_NAME, report.FILE_NAME, DEAD_LETTERS, _vocab_name(config)]:
        require_file(os.path.join(config.output_dir, name), "output_dir")


def require_replaceable(config: BuildConfig, plan: BuildPlan) -> None:
    """Raises UserError if the output folder holds samples made with other flags or from other input, unless
    --overwrite is given."""
    out = config.output_dir
    if config.overwrite or os.path.isdir(plan.job.work_dir):    # a resumed build has passed this check
        return
    if not os.path.exists(os.path.join(out, manifest.FILE_NAME)):
        shards = _names_in(out, _RECORDS_NAME)
        if shards:
            raise UserError("--output_dir: %s holds %s, and no %s says how it was made: give another folder, "
                            "or --overwrite" % (out, sorted(shards)[0], manifest.FILE_NAME))
        return
    found = manifest.read(out)
    changes = list(_changes(found, config, plan))
    if changes:
        raise UserError("--output_dir: %s holds the %d samples of another build (%s): give another folder, "
                        "or --overwrite" % (out, sum(shard.records for shard in found.train),
                                         "; ".join(changes[:3])))


def _changes(found: manifest.Manifest, config: BuildConfig, plan: BuildPlan) -> Iterator[str]:
    """The differences between an existing build and the new one that change the samples."""
    before, now = dict(flags_of(BuildConfig()), **found.flags), flags_of(config)
    names = [*flags_of(config.instances), "do_lower_case", "user_dict", "duplicates", "eval_fraction",
             "num_shards", "input_format"] + ["text_field"] * (config.text_format.input_format == "jsonl")
    for name in names:
        values = [list(value) if isinstance(value, tuple) else value for value in (before[name], now[name])]
        if values[0] != values[1]:
            yield "--%s was %s, is %s" % (name, *values)
    if found.vocab_sha256 != sha256_of_file(plan.vocab_path):
        yield "the vocabulary differs"
    if _contents(found.inputs) != _contents(plan.inputs):
        yield "the input differs"


def _contents(inputs: Iterable[Mapping[str, Any]]) -> List[Any]:
    return [(entry.get("bytes"), entry.get("sha256_of_ends")) for entry in inputs]


def require_merged(plan: BuildPlan, part: str, index: int, count: int,
                   reads_it: bool = False) -> Dict[str, Any]:
    """The marker of a finished shard (see `read_shard_marker`). Raises OSError if the shard does not match
    the marker.

    It is in the work folder or, after an interrupted publication, already has its final name. One in the work
    folder that this run did not write is checked against its SHA-256 with `reads_it`.
    """
    path = shard_path(plan.job.work_dir, part, index, count)
    marker = read_shard_marker(plan.job.work_dir, part, index, count)
    final = os.path.join(os.path.dirname(plan.work_parent), shard_name(part, index, count))
    found = path if os.path.lexists(path) else final
    if not os.path.isfile(found) or os.path.islink(found) or os.path.getsize(found) != marker["bytes"]:
        raise damaged(path + ".json", "bytes: %d, but %s differs" % (marker["bytes"], found))
    if (reads_it or found == final) and sha256_of_file(found) != marker["sha256"]:
        raise damaged(path + ".json", "sha256: %s, but %s differs" % (marker["sha256"], found))
    return marker


def verify(folder: str) -> str:
    """Reads every record of a build. Returns a summary; raises UserError for the first difference from the
    manifest."""
    found = manifest.read(folder)
    listed = {shard.path for shard in found.train + found.eval}
    further = sorted(set(_names_in(folder, _RECORDS_NAME)) - listed)
    if further:
        raise UserError("%s: not in the manifest" % os.path.join(folder, further[0]))
    records = size = 0
    for shard in found.train + found.eval:
        path = os.path.join(folder, shard.path)
        if not os.path.isfile(path):
            raise UserError("%s: missing, but the manifest lists it" % path)
        if os.path.getsize(path) != shard.bytes:
            raise UserError("%s: has %d bytes, the manifest says %d"
                            % (path, os.path.getsize(path), shard.bytes))
        digest = hashlib.sha256()
        with open(path, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
            stream.seek(0)
            count = 0
            for record in read_frames(stream, path):
                _check_record(record, found.features, "%s: record %d" % (path, count))
                count += 1
        if digest.hexdigest() != shard.sha256:
            raise UserError("%s: sha256 is %s, the manifest says %s"
                            % (path, digest.hexdigest(), shard.sha256))
        if count != shard.records:
            raise UserError("%s: holds %d records, the manifest says %d" % (path, count, shard.records))
        records, size = records + count, size + shard.bytes
    vocabulary = found.tokenizer.vocabulary_file
    if sha256_of_file(vocabulary) != found.vocab_sha256:
        raise UserError("%s: not the vocabulary that the manifest names" % vocabulary)
    entries = len(load_tokenizer(found.tokenizer).vocabulary)
    if entries != found.vocab_size:
        raise UserError("%s: holds %d entries, the manifest says %d"
                        % (vocabulary, entries, found.vocab_size))
    return "%s: %d shards, %d records, %.1f MB: all as the manifest says" % (
        folder, len(found.train + found.eval), records, size / 1e6)


def _vocab_name(config: BuildConfig) -> str:
    return "spm.model" if config.spm_model_file else "vocab.txt"


def _check_record(record: bytes, features: Any, place: str) -> None:
    try:
        values = deserialize_example(record)
    except ValueError as error:
        raise UserError("%s: %s" % (place, error))
    for name, _, length in features:
        if len(values.get(name, ())) != length:
            raise UserError("%s: feature %s has %d values, the manifest says %d"
                            % (place, name, len(values.get(name, ())), length))


def _remove_old(folder: str, nothing_moved: bool) -> None:
    """Removes only the files of an earlier build: the manifest first, so that nothing refers to the rest.

    After an interrupted publication, the shards there are this build's own: then those are kept.
    """
    names = [manifest.FILE_NAME, report.FILE_NAME, DEAD_LETTERS]
    if nothing_moved:
        names += _names_in(folder, _SHARD_NAME)
    for name in names:
        if os.path.isfile(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
            with contextlib.suppress(OSError):
                if os.path.dirname(name):      # eval/ and dead_letters/, if they are now empty
                    os.rmdir(os.path.join(folder, os.path.dirname(name)))


def _names_in(folder: str, pattern: Pattern[str]) -> List[str]:
    """The names that match, in the folder and its eval/; paths below the folder."""
    names = []
    for part in PARTS:
        below = os.path.dirname(shard_name(part, 0, 1))
        if os.path.isdir(os.path.join(folder, below)):
            names += [os.path.join(below, name) for name in os.listdir(os.path.join(folder, below))
                      if pattern.fullmatch(name)]
    return names


def _gather_dead_letters(plan: BuildPlan, path: str) -> None:
    """Joins the dead letters of all chunks into one file; no file if there are none."""
    parts = [
        part for part in (dead_letters_path(plan.job.work_dir, index) for index in range(len(plan.ranges)))
        if os.path.exists(part)]
    if not parts:
        return
    with atomic_write(path) as stream:
        for part in parts:
            with open_regular(part) as letters:
                shutil.copyfileobj(letters, stream)  # type: ignore[misc]
