"""The builder's flags, and everything derived from them and the input before the first worker starts."""
import contextlib
import dataclasses
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import albert_config
from etl.beam.cluster import ClusterConfig
from etl.building.chunks import ChunkJob, versions
from etl.building.first_look import require_text, warnings_of
from etl.building.sources import FileRange, Stamp, TextFormat, is_compressed, plan_ranges, stamp
from etl.building.work_files import remove_work, work_folders
from etl.common.command_line import UserError, flag, nested
from etl.common.cores import usable_cores
from etl.common.files import (copy, expand_sets, fingerprint, lock, remove_temporary, require_folder,
                              sha256_of_file)
from etl.samples.instances import InstanceConfig
from etl.text.tokenization import TokenizerConfig, load_tokenizer
from etl.text.words import SegmenterConfig, check_user_dict, load_segmenter

SHARD_BYTES = 256 << 20
RECORD_BYTES_PER_TEXT_BYTE = 1.7            # of one copy; only for the default number of shards
WORD_BYTES = 4 << 20                        # of text whose words are counted for the report
COMPRESSION = 4                             # guessed, for the same purpose
PARALLEL_BYTES = 8 << 20                    # below this, starting worker processes costs more than it saves

WORK_FOLDER, LOCK = ".work", "lock"
FURTHER_FOLDERS = ("eval", "dead_letters")     # of an output folder
WORK_FORMAT = 4  # of a work folder; a build does not resume one with another format
MODEL_FILE = "model.json"  # marks the folder of a model, whose vocabulary a build's would replace

TOKENIZERS = ("wordpiece", "sentencepiece")

_SAMPLE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sample", "*.txt")


@dataclass(frozen=True)
class BuildConfig:
    """The flags of `etl.build_pretrain`."""
    input_file: Tuple[str, ...] = flag((_SAMPLE,),
                                       "text: names or quoted globs, one or more; also .gz and .bz2")
    output_dir: str = flag("output/pretrain_data",
                           "folder for the shards and manifest.json; local or shared file system")
    text_format: TextFormat = nested(TextFormat)
    tokenizer: Optional[str] = flag(
        None, "kind of tokenizer; default: sentencepiece when spm_model_file is given", TOKENIZERS)
    vocab_file: str = flag(albert_config.vocab_path(), "WordPiece vocabulary, one entry per line")
    spm_model_file: Optional[str] = flag(None, "SentencePiece model, instead of a vocabulary")
    do_lower_case: bool = flag(True, "lower-case and strip accents; must fit the vocabulary")
    segmenter: SegmenterConfig = nested(SegmenterConfig)
    instances: InstanceConfig = nested(InstanceConfig)
    duplicates: str = flag("keep", "what to do with documents whose text is repeated", ("keep", "drop"))
    max_bad_fraction: float = flag(0.0, "share of documents that may be unusable (bad UTF-8, over-long, bad "
                                   "JSON); they go to dead_letters/. 0: the first one stops the build")
    eval_fraction: float = flag(0.05, "share of documents held out for evaluation, in eval/")
    num_shards: Optional[int] = flag(None, "number of training shards; default: one per 256 MB or so")
    range_bytes: Optional[int] = flag(
        None, "bytes of input a worker takes at a time; default: 1/64 of the input, between 1 and 64 MiB")
    cluster: ClusterConfig = nested(ClusterConfig)
    overwrite: bool = flag(False, "replace what another build, with other flags or input, has left in "
                           "output_dir")
    verify: bool = flag(False, "build nothing: read all of output_dir and check it against its manifest")

    def __post_init__(self) -> None:
        for name in ("num_shards", "range_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError("%s must be at least 1, got %d" % (name, value))
        for name in ("eval_fraction", "max_bad_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError("%s must be in [0, 1), got %s" % (name, getattr(self, name)))
        if self.tokenizer == "sentencepiece" and not self.spm_model_file:
            raise ValueError("tokenizer sentencepiece needs spm_model_file")
        if self.tokenizer == "wordpiece" and self.spm_model_file:
            raise ValueError("tokenizer wordpiece takes no spm_model_file, got %s" % self.spm_model_file)
        if "://" in self.output_dir:
            raise ValueError("output_dir must be on a local or shared file system, got %s; mount it, or copy "
                             "the result" % self.output_dir)

    @property
    def tokenizer_config(self) -> TokenizerConfig:
        """How text becomes ids."""
        return TokenizerConfig(None if self.spm_model_file else self.vocab_file, self.do_lower_case,
                               self.spm_model_file)


@dataclass(frozen=True)
class BuildPlan:
    """What a build will do, and where.

    Attributes:
      inputs: path, size and fingerprint of each input file.
      stamps: of each input file, taken before it is read.
      vocab_path: the vocabulary, or the SentencePiece model.
      num_workers: processes of the DirectRunner.
      warnings: what should be said of the input.
    """
    job: ChunkJob
    ranges: Sequence[FileRange]
    inputs: Sequence[Dict[str, Any]]
    stamps: Dict[str, Stamp]
    input_bytes: int
    vocab_path: str
    vocab_size: int
    num_workers: int
    warnings: Sequence[str]

    @property
    def work_parent(self) -> str:
        """The folder of the work folder and of those of other builds."""
        return os.path.dirname(self.job.work_dir)

    @property
    def log_path(self) -> str:
        """The log of worker processes."""
        return os.path.join(self.job.work_dir, "workers.log")


def plan_build(config: BuildConfig) -> BuildPlan:
    """Examines the input and the vocabulary, and determines ranges, shards and work folder. Writes nothing.

    Raises UserError for unusable input, vocabulary or output folder.
    """
    _check_output(config.output_dir)
    paths = expand_sets(config.input_file, "input_file")
    _check_input(config, paths)
    vocab_path, user_dict = config.tokenizer_config.vocabulary_file, config.segmenter.user_dict
    others = [vocab_path] + ([user_dict] if user_dict else [])
    stamps = {path: stamp(os.stat(path)) for path in paths + others}
    warnings = warnings_of(paths, config.text_format)
    inputs = [fingerprint(path) for path in paths]
    text_bytes = sum(entry["bytes"] * (COMPRESSION if is_compressed(entry["path"]) else 1)
                     for entry in inputs)
    vocab_size = _check_vocabulary(config)
    if config.segmenter != SegmenterConfig():
        load_segmenter(config.segmenter)       # errors are reported here, not by a worker
    if user_dict:
        warnings += filter(None, [check_user_dict(user_dict)])
    ranges = plan_ranges(paths, config.range_bytes)
    job = ChunkJob(
        work_dir="", tokenizer=config.tokenizer_config, instances=config.instances,
        num_shards=_num_shards(config, text_bytes), eval_fraction=config.eval_fraction,
        text_format=config.text_format, segmenter=config.segmenter,
        keep_duplicates=config.duplicates == "keep",
        word_share=min(1.0, WORD_BYTES / max(1, text_bytes)), versions=tuple(sorted(versions().items())))
    # An edit in the middle of a large file changes only its modification time.
    contents = [sha256_of_file(path) for path in others] + [str(stamps[path].modified_ns) for path in paths]
    name = _digest((WORK_FORMAT, job, ranges, inputs, contents))
    work_dir = os.path.join(os.path.abspath(config.output_dir), WORK_FOLDER, name)
    job = dataclasses.replace(job, work_dir=work_dir, stop_at_bad_records=not config.max_bad_fraction)
    num_workers = _num_workers(config.cluster, text_bytes)
    if config.cluster.runner != "DirectRunner":    # workers elsewhere have other working directories
        job, ranges = _absolute(job), [entry._replace(path=os.path.abspath(entry.path)) for entry in ranges]
    return BuildPlan(
        job=job, ranges=ranges, inputs=inputs, stamps=stamps,
        input_bytes=sum(entry["bytes"] for entry in inputs), vocab_path=vocab_path, vocab_size=vocab_size,
        num_workers=num_workers, warnings=warnings)


def _check_output(output_dir: str) -> None:
    require_folder(output_dir, "output_dir")
    if os.path.exists(os.path.join(output_dir, MODEL_FILE)):
        raise UserError("--output_dir: %s holds a model: give another folder" % output_dir)


def _check_input(config: BuildConfig, paths: Sequence[str]) -> None:
    for path in paths:
        if os.path.exists(config.vocab_file) and os.path.samefile(path, config.vocab_file):
            raise UserError("--input_file: %s is the vocabulary: give text files only" % path)
    for path in paths:
        require_text(path, config.text_format)


def _check_vocabulary(config: BuildConfig) -> int:
    """The size of the vocabulary. Raises UserError if the requested samples cannot be made with it."""
    vocabulary = load_tokenizer(config.tokenizer_config).vocabulary
    has_twins = (vocabulary.continued_ids != range(len(vocabulary))).any()
    if config.instances.masked_lm_labels == "albert_zh" and not has_twins:
        raise UserError("--masked_lm_labels albert_zh: %s has no ## entries for Han characters; use the "
                        "vocabulary of the released checkpoint" % config.vocab_file)
    if not len(vocabulary.replaceable_ids):
        raise UserError("%s: holds special tokens only" % config.tokenizer_config.vocabulary_file)
    return len(vocabulary)


def _num_shards(config: BuildConfig, text_bytes: int) -> Tuple[Tuple[str, int], ...]:
    record_bytes = text_bytes * RECORD_BYTES_PER_TEXT_BYTE
    num_train = config.num_shards or 1 + int(record_bytes * config.instances.dupe_factor / SHARD_BYTES)
    num_eval = 1 + int(record_bytes * config.eval_fraction / SHARD_BYTES) if config.eval_fraction else 0
    return ("train", num_train), ("eval", num_eval)


def _num_workers(cluster: ClusterConfig, text_bytes: int) -> int:
    """Processes of the DirectRunner: as given by flag, or one per core if worthwhile."""
    if cluster.runner != "DirectRunner":
        return 1
    in_one_process = (cluster.direct_running_mode == "in_memory"
                      or not cluster.direct_running_mode and text_bytes <= PARALLEL_BYTES)
    return cluster.direct_num_workers or (1 if in_one_process else usable_cores())


def _digest(parts: Tuple[object, ...]) -> str:
    """The name of a work folder: a hash of everything that determines the result, so a build resumes only its
    own chunks."""
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextlib.contextmanager
def work_folder(plan: BuildPlan) -> Iterator[None]:
    """Creates the work folder and holds its lock while the block runs.

    If the block raises UserError (the same command would raise it again), the work folder is removed, and
    the output folder if it was created here. Otherwise the work is kept, so that the same command resumes.

    Raises UserError if another build is running in the same output folder, or if a folder whose content would
    be removed is a link.
    """
    parent, work_dir = plan.work_parent, plan.job.work_dir
    out = os.path.dirname(parent)
    for path in [parent, work_dir] + [os.path.join(out, name) for name in FURTHER_FOLDERS]:
        if os.path.islink(path):
            raise UserError("--output_dir: %s is a link; a build removes files in its own folder only: "
                            "remove the link" % path)
    is_new = not os.path.exists(out)
    with lock(os.path.join(parent, LOCK), "--output_dir: another build is running in %s" % out):
        for name in ("",) + FURTHER_FOLDERS:
            remove_temporary(os.path.join(out, name))
        os.makedirs(work_dir, exist_ok=True)
        _unshare(plan.log_path)
        try:
            yield
        except UserError:
            remove_work(work_dir)
            if os.listdir(parent) == [LOCK]:   # no other, interrupted build
                remove_lock(parent)
            if is_new:
                with contextlib.suppress(OSError):    # someone has put a file there in the meantime
                    os.rmdir(out)
            raise


def drop_other_builds(plan: BuildPlan) -> None:
    """Removes the work of interrupted builds with other flags or input, once this build is usable."""
    for name in set(work_folders(plan.work_parent)) - {os.path.basename(plan.job.work_dir)}:
        remove_work(os.path.join(plan.work_parent, name))


def remove_lock(parent: str) -> None:
    """Removes the lock, for its holder, and its folder if that is empty."""
    os.remove(os.path.join(parent, LOCK))
    with contextlib.suppress(OSError):
        os.rmdir(parent)


def _unshare(log_path: str) -> None:
    """Replaces a file that will be appended to by our own copy, if a copy made of hard links shares it."""
    if os.path.isfile(log_path) and not os.path.islink(log_path) and os.stat(log_path).st_nlink > 1:
        mode = stat.S_IMODE(os.stat(log_path).st_mode)
        copy(log_path, log_path)
        os.chmod(log_path, mode)


def _absolute(job: ChunkJob) -> ChunkJob:
    """The same job with absolute paths, for processes with another working directory."""
    names = {name: os.path.abspath(path)
             for name, path in vars(job.tokenizer).items() if name.endswith("_file") and path}
    user_dict = job.segmenter.user_dict
    return dataclasses.replace(
        job, tokenizer=dataclasses.replace(job.tokenizer, **names),
        segmenter=dataclasses.replace(job.segmenter, user_dict=user_dict and os.path.abspath(user_dict)))
