"""The builder's flags, and all that follows from them and the input before the first worker starts."""
import contextlib
import dataclasses
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Sequence, Tuple

import albert_config
from etl.beam.cluster import ENVIRONMENTS, RUNNERS, ClusterConfig
from etl.building.chunks import ChunkJob, versions
from etl.building.sources import (INPUT_FORMATS, FileRange, Stamp, begins_with_json, is_compressed,
                                  plan_ranges, stamp)
from etl.building.work_files import remove_work, work_folders
from etl.common.command_line import UserError, flag
from etl.common.files import copy, expand, fingerprint, lock, remove_temporary, require_folder, sha256_of_file
from etl.samples.instances import LABELS, MASKINGS, SENTENCE_OBJECTIVES, InstanceConfig
from etl.text.tokenization import TokenizerConfig, load_tokenizer
from etl.text.words import SEGMENTERS, load_segmenter

SHARD_BYTES = 256 << 20
RECORD_BYTES_PER_TEXT_BYTE = 1.7               # of one copy; only decides how many shards are made by default
WORD_BYTES = 4 << 20                           # of text whose words are counted for the report
COMPRESSION = 4                                # guessed, for the same purpose
PARALLEL_BYTES = 8 << 20                       # below this, starting worker processes costs more than they save

WORK_FOLDER, LOCK = ".work", "lock"
FURTHER_FOLDERS = ("eval", "dead_letters")     # of an output folder
WORK_FORMAT = 2                                # of what lies in a work folder; that of another one is not gone on with
MODEL_FILE = "model.json"                      # says that a folder holds a model, whose vocabulary a build's would replace

TOKENIZERS = ("wordpiece", "sentencepiece")

_SAMPLE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sample", "*.txt")
_DEFAULTS = InstanceConfig()


@dataclass(frozen=True)
class BuildConfig:
    """The flags of `etl.build_pretrain`."""
    input_file: Tuple[str, ...] = flag((_SAMPLE,), "text: names or quoted globs, several; .gz and .bz2 are read, too")
    output_dir: str = flag("output/pretrain_data", "folder for the shards and manifest.json; local or shared file system")
    input_format: str = flag("text", "text: a sentence a line, a blank line between documents; jsonl: a document a line",
                             INPUT_FORMATS)
    text_field: str = flag("text", "where the text is in a line of jsonl")
    tokenizer: Optional[str] = flag(None, "kind of tokenizer; without it sentencepiece when spm_model_file is given", TOKENIZERS)
    vocab_file: str = flag(albert_config.vocab_path(), "WordPiece vocabulary, one entry a line")
    spm_model_file: Optional[str] = flag(None, "SentencePiece model, instead of a vocabulary")
    do_lower_case: bool = flag(True, "lower-case and strip accents; must fit the vocabulary")
    user_dict: Optional[str] = flag(None, "further words for jieba, in its own format")
    segmenter: str = flag("auto", "what finds the words: the same ones, but rjieba helps to find them several times as fast. "
                          "auto: rjieba where it is installed and there is no user_dict", SEGMENTERS)
    max_seq_length: int = flag(_DEFAULTS.max_seq_length, "tokens of a sample, [CLS] and [SEP] included")
    max_predictions_per_seq: Optional[int] = flag(
        None, "most tokens to predict in a sample; without it masked_lm_prob * max_seq_length, twice that with do_permutation")
    masked_lm_prob: float = flag(_DEFAULTS.masked_lm_prob, "share of tokens to predict")
    short_seq_prob: float = flag(_DEFAULTS.short_seq_prob, "chance that a copy of a document gets shorter samples")
    dupe_factor: int = flag(_DEFAULTS.dupe_factor, "copies of each document, each split and masked anew")
    random_seed: int = flag(_DEFAULTS.random_seed, "another seed gives other samples")
    masking: str = flag(_DEFAULTS.masking, "whole words, runs of whole words (ALBERT), or single tokens", MASKINGS)
    ngram: int = flag(_DEFAULTS.ngram, "longest run of words with --masking ngram")
    masked_lm_labels: str = flag(_DEFAULTS.masked_lm_labels, "albert_zh: ## on Han inside a word, as the released albert_zh "
                                 "heads were trained; for continuing those", LABELS)
    do_permutation: bool = flag(_DEFAULTS.do_permutation, "shuffle as many further tokens as are masked, and predict them")
    token_boundary: bool = flag(False, "write the feature token_boundary, as Google's tool does")
    sentence_objective: str = flag(
        _DEFAULTS.sentence_objective, "order: two consecutive segments, half of them swapped; next: half of the second segments "
        "from another document; none: one segment", SENTENCE_OBJECTIVES)
    duplicates: str = flag("keep", "what to do with documents whose text is repeated", ("keep", "drop"))
    max_bad_fraction: float = flag(0.0, "share of documents that may be unusable (bad UTF-8, over-long, bad JSON); they go to "
                                   "dead_letters/. 0: the first one ends the build")
    eval_fraction: float = flag(0.05, "share of documents held out for evaluation, in eval/")
    num_shards: Optional[int] = flag(None, "training shards; without it one for about every 256 MB")
    range_bytes: Optional[int] = flag(
        None, "bytes of input a worker takes at a time; without it 1/64 of the input, within 1 and 64 MiB")
    runner: str = flag("DirectRunner", "DirectRunner: this machine; FlinkRunner: a Flink cluster; PortableRunner: any engine with a "
                       "job server of Beam's", RUNNERS)
    direct_num_workers: int = flag(0, "processes of the DirectRunner; 0: one for each core, if the input is large enough")
    direct_running_mode: Optional[str] = flag(None, "in_memory or multi_processing; without it, by the number of workers")
    parallelism: Optional[int] = flag(None, "ranges at work at once on a cluster, each in a process of its own")
    flink_master: Optional[str] = flag(None, "HOST:PORT of a Flink cluster's web page; Beam's job server is started here, with java")
    flink_job_server_jar: Optional[str] = flag(None, "that job server; without it Beam fetches the one for the cluster's version")
    job_endpoint: Optional[str] = flag(None, "HOST:PORT of a job server that runs already, instead of flink_master")
    environment_type: Optional[str] = flag(None, "what starts workers on a cluster. LOOPBACK (the default): this command, when all "
                                           "runs on one host; EXTERNAL: a pool on each host; PROCESS: the engine", ENVIRONMENTS)
    environment_config: Optional[str] = flag(None, "EXTERNAL: HOST:PORT of the pools; PROCESS: path of etl-worker")
    worker_token_file: Optional[str] = flag(None, "EXTERNAL: file with the secret of the pools, that of their token_file; who sees "
                                            "the job's options sees the secret")
    verify: bool = flag(False, "build nothing: read all of output_dir and hold it against its manifest")

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
            raise ValueError("tokenizer wordpiece has no use for spm_model_file, got %s" % self.spm_model_file)
        if self.direct_num_workers < 0:
            raise ValueError("direct_num_workers must be at least 0, got %d" % self.direct_num_workers)
        if self.direct_running_mode == "multi_threading":
            raise ValueError("direct_running_mode multi_threading loses elements in Beam 2.48 without a word: use "
                             "multi_processing or in_memory")
        if self.direct_running_mode not in (None, "in_memory", "multi_processing"):
            raise ValueError("direct_running_mode must be in_memory or multi_processing, got %s" % self.direct_running_mode)
        if self.direct_running_mode == "in_memory" and self.direct_num_workers > 1:
            raise ValueError("direct_running_mode in_memory has one worker, got direct_num_workers %d"
                             % self.direct_num_workers)
        if self.runner != "DirectRunner" and (self.direct_num_workers or self.direct_running_mode):
            raise ValueError("direct_num_workers and direct_running_mode are for DirectRunner, got runner %s; use parallelism"
                             % self.runner)
        _ = self.cluster                       # checks its flags
        if "://" in self.output_dir:
            raise ValueError("output_dir must be on a local or shared file system, got %s; mount it, or copy the result"
                             % self.output_dir)
        if not 0 < self.masked_lm_prob < 1:    # before max_predictions_per_seq is derived from it
            raise ValueError("masked_lm_prob must be in (0, 1), got %s" % self.masked_lm_prob)
        _ = self.instances                     # checks the rest

    @property
    def instances(self) -> InstanceConfig:
        """The part of the flags that decides what samples a document gives."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(InstanceConfig)}
        if self.max_predictions_per_seq is None:
            share = self.masked_lm_prob * (2 if self.do_permutation else 1)    # shuffled tokens are as many as masked ones
            values["max_predictions_per_seq"] = min(self.max_seq_length, max(1, int(round(share * self.max_seq_length))))
        return InstanceConfig(**values)

    @property
    def cluster(self) -> ClusterConfig:
        """The part of the flags that says where all is run."""
        return ClusterConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(ClusterConfig)})

    @property
    def tokenizer_config(self) -> TokenizerConfig:
        """How text becomes ids."""
        return TokenizerConfig(None if self.spm_model_file else self.vocab_file, self.do_lower_case, self.spm_model_file)


@dataclass(frozen=True)
class Plan:
    """What will be done, and where.

    Attributes:
      inputs: path, size and fingerprint of each input file.
      stamps: of each file that is read, before anything of it was.
      vocab_path: the vocabulary, or the SentencePiece model.
      num_workers: processes of the DirectRunner.
    """
    job: ChunkJob
    ranges: Sequence[FileRange]
    inputs: Sequence[Dict[str, Any]]
    stamps: Dict[str, Stamp]
    input_bytes: int
    vocab_path: str
    vocab_size: int
    num_workers: int

    @property
    def work_parent(self) -> str:
        """The folder of the work folder and of those of other builds."""
        return os.path.dirname(self.job.work_dir)

    @property
    def log_path(self) -> str:
        """Where worker processes write what they have to say."""
        return os.path.join(self.job.work_dir, "workers.log")


def make_plan(config: BuildConfig) -> Plan:
    """Looks at the input and the vocabulary, and decides ranges, shards and work folder. Writes nothing.

    The work folder's name is a hash of everything that decides the result, so that a build goes on only with its own chunks.
    """
    require_folder(config.output_dir, "output_dir")
    if os.path.exists(os.path.join(config.output_dir, MODEL_FILE)):
        raise UserError("--output_dir: %s holds a model: give another folder" % config.output_dir)
    paths = expand(config.input_file, "input_file")
    for path in paths:
        if os.path.exists(config.vocab_file) and os.path.samefile(path, config.vocab_file):
            raise UserError("--input_file: %s is the vocabulary: name text alone" % path)
    if config.input_format == "text" and begins_with_json(paths[0]):
        raise UserError("--input_file: %s holds JSON lines: give --input_format jsonl, and --text_field, the field of the text" % paths[0])
    further = [path for path in (config.spm_model_file or config.vocab_file, config.user_dict) if path]
    stamps = {path: stamp(os.stat(path)) for path in paths + further}
    inputs = [fingerprint(path) for path in paths]
    input_bytes = sum(entry["bytes"] for entry in inputs)
    vocabulary = load_tokenizer(config.tokenizer_config).vocabulary
    if config.masked_lm_labels == "albert_zh" and (vocabulary.continued_ids == range(len(vocabulary))).all():
        raise UserError("--masked_lm_labels albert_zh: %s has no ## entries for Han characters; use the vocabulary of the "
                        "released checkpoint" % config.vocab_file)
    if not len(vocabulary.replaceable_ids):
        raise UserError("%s: holds special tokens only" % (config.spm_model_file or config.vocab_file))
    if config.user_dict or config.segmenter != "auto":
        load_segmenter(config.user_dict, config.segmenter)    # what is wrong with it is said here, not in a worker
    ranges = plan_ranges(paths, config.range_bytes)
    text_bytes = sum(entry["bytes"] * (COMPRESSION if is_compressed(entry["path"]) else 1) for entry in inputs)
    record_bytes = text_bytes * RECORD_BYTES_PER_TEXT_BYTE
    num_train = config.num_shards or 1 + int(record_bytes * config.dupe_factor / SHARD_BYTES)
    num_eval = 1 + int(record_bytes * config.eval_fraction / SHARD_BYTES) if config.eval_fraction else 0
    job = ChunkJob("", config.tokenizer_config, config.instances, (("train", num_train), ("eval", num_eval)),
                   config.eval_fraction, config.input_format, config.text_field, config.user_dict, config.segmenter,
                   config.token_boundary, keep_duplicates=config.duplicates == "keep", versions=tuple(sorted(versions().items())),
                   word_share=min(1.0, WORD_BYTES / max(1, text_bytes)))
    vocab_path = config.spm_model_file or config.vocab_file
    files = [sha256_of_file(path) for path in further]
    files += [str(stamps[path].modified_ns) for path in paths]    # an edit in the middle of a large file shows in nothing else
    name = hashlib.sha256(repr((WORK_FORMAT, job, ranges, inputs, files, job.versions)).encode("utf-8", "surrogateescape")).hexdigest()
    work_dir = os.path.join(os.path.abspath(config.output_dir), WORK_FOLDER, name[:16])
    if config.direct_running_mode:
        workers = config.direct_num_workers or (1 if config.direct_running_mode == "in_memory" else os.cpu_count() or 1)
    else:
        workers = config.direct_num_workers or (os.cpu_count() or 1 if text_bytes > PARALLEL_BYTES else 1)
    job = dataclasses.replace(job, work_dir=work_dir, stop_at_bad_records=not config.max_bad_fraction)
    if config.runner != "DirectRunner":        # workers elsewhere stand in other folders
        job, ranges, workers = _absolute(job), [entry._replace(path=os.path.abspath(entry.path)) for entry in ranges], 1
    return Plan(job, ranges, inputs, stamps, input_bytes, vocab_path, len(vocabulary), workers)


@contextlib.contextmanager
def work_folder(plan: Plan) -> Iterator[None]:
    """Makes the work folder and holds its lock while the block runs.

    When the block raises UserError (the same command would raise it again), the work folder goes, and the output folder
    if it was made here. Any other end leaves the work, so that the same command goes on.

    Raises UserError when another build is at work in the same output folder, or a link stands for a folder whose content would be removed.
    """
    parent, work_dir = plan.work_parent, plan.job.work_dir
    out = os.path.dirname(parent)
    for path in [parent, work_dir] + [os.path.join(out, name) for name in FURTHER_FOLDERS]:
        if os.path.islink(path):
            raise UserError("--output_dir: %s is a link: what a build removes must lie in its own folder; remove it" % path)
    is_new = not os.path.exists(out)
    with lock(os.path.join(parent, LOCK), "--output_dir: another build is at work in %s" % out):
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
                with contextlib.suppress(OSError):    # somebody has put something there meanwhile
                    os.rmdir(out)
            raise


def drop_other_builds(plan: Plan) -> None:
    """Removes the work of interrupted builds with other flags or input. For a build that has proved usable."""
    for name in set(work_folders(plan.work_parent)) - {os.path.basename(plan.job.work_dir)}:
        remove_work(os.path.join(plan.work_parent, name))


def remove_lock(parent: str) -> None:
    """Removes the lock of who holds it, and its folder, unless something else is there."""
    os.remove(os.path.join(parent, LOCK))
    with contextlib.suppress(OSError):
        os.rmdir(parent)


def _unshare(log_path: str) -> None:
    """Makes a file that is written at its end one of our own, where a copy made of hard links has it in common with the original."""
    if os.path.isfile(log_path) and not os.path.islink(log_path) and os.stat(log_path).st_nlink > 1:
        mode = stat.S_IMODE(os.stat(log_path).st_mode)
        copy(log_path, log_path)
        os.chmod(log_path, mode)


def _absolute(job: ChunkJob) -> ChunkJob:
    """The same job, whatever the folder one stands in."""
    names = {name: os.path.abspath(path) for name, path in vars(job.tokenizer).items() if name.endswith("_file") and path}
    return dataclasses.replace(job, tokenizer=dataclasses.replace(job.tokenizer, **names),
                               user_dict=job.user_dict and os.path.abspath(job.user_dict))
