"""Checks a new version of an exported model, then puts it in place atomically."""
import itertools
import os
import shutil
import time
from typing import Optional

import tensorflow.compat.v1 as tf

from estimator.model import kinds
from estimator.training import best_checkpoint
from estimator.weights import model_folder
from estimator.weights.model_folder import ModelFolder
from etl.common import files
from etl.common.command_line import UserError
from etl.text.tokenization import load_tokenizer
from serving.exporting import ascend_kit, model_card, text_model
from serving import version_files
from serving.exporting.flags import (MAX_PROFILES, MAX_VERSION, PROFILE_BATCH_SIZES, PROFILE_LENGTHS,
                                     SAVED_MODEL, SOC_VERSION, ExportConfig)
from serving.exporting.reference import SAMPLES


def export(config: ExportConfig) -> None:
    """Writes and checks a new version. Raises UserError before anything is visible if model or flags do
    not fit."""
    tf.logging.set_verbosity(tf.logging.ERROR)
    output_dir = config.output_dir or ("output/export" if config.format == SAVED_MODEL else "output/ascend")
    files.require_folder(output_dir, "output_dir")
    model = read_model(config.checkpoint_dir)
    checkpoint = best_checkpoint.choose(config.checkpoint_dir, "checkpoint_dir")
    if model_folder.beside(checkpoint):        # best/ has its own description
        model = read_model(os.path.dirname(checkpoint))
    highest = max(version_files.folders_in(output_dir), default=-1)
    number = choose_number(config.version, highest, int(time.time()), output_dir)
    version = str(number)
    destination = os.path.join(output_dir, version)
    if os.path.exists(destination):
        raise UserError("--version: %s exists; give another number" % destination)
    temporary = files.temporary_path(os.path.join(output_dir, "." + version))
    try:
        next_command = (text_model.write(temporary, model, checkpoint) if config.format == SAVED_MODEL else
                        write_ascend_kit(config, temporary, model, checkpoint))
        os.rename(temporary, destination)
    except tf.errors.OpError as error:         # such as a full disk
        raise UserError("--output_dir: %s: %s" % (output_dir, error.message.split("\n")[0]))
    except OSError as error:                   # also for a full disk, without a file name
        raise error if error.filename else UserError("--output_dir: %s: %s"
                                                     % (output_dir, error.strerror or error))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print("Exported %s to %s (%.1f MB)" % (checkpoint, destination, _megabytes(destination)))
    kind = "a regression" if model.kind == kinds.CLASSES else model.kind
    print("  task %s, %s, at most %d tokens" %
          (model.task, "labels " + ", ".join(model.labels) if model.labels else kind, model.max_seq_length))
    if number < highest:
        print("  a server of this folder goes on with version %d, the highest number" % highest)
    print("Next: " + next_command % {"output_dir": output_dir, "version": version})


def choose_number(wanted: Optional[int], highest: int, now: int, output_dir: str) -> int:
    """The new version's: the wanted one; else the seconds since 1970, `now`, but above the highest number
    there, which a clock that ran ahead may have given.

    Raises UserError where no number is left.
    """
    if wanted is not None:
        return wanted
    if highest >= MAX_VERSION:
        raise UserError("--output_dir: %s: version %d is the highest number that servers read: remove it, or "
                        "give --version" % (output_dir, highest))
    return max(now, highest + 1)


def read_model(folder: str) -> ModelFolder:
    """The description of a fine-tuned model; one of classes without labels is a regression. Raises UserError
    for any other."""
    model = model_folder.read(folder, made_by="estimator.finetune")
    path = os.path.join(folder, model_folder.DESCRIPTION_FILE)
    if model.task is None:
        raise UserError("%s: task: wanted that of a fine-tuned model, got none: run python -m "
                        "estimator.finetune first" % path)
    if len(model.labels) == 1:
        raise UserError("%s: labels: a classifier has at least 2, this model has 1" % path)
    return model


def write_ascend_kit(config: ExportConfig, folder: str, model: ModelFolder, checkpoint: str) -> str:
    """Writes the input for atc and returns the next command. Raises UserError for a length beyond the
    model's."""
    if model.kind != kinds.CLASSES or not model.labels:
        raise UserError("--format ascend is for classifiers; the model in --checkpoint_dir is %s" % (
            "of kind " + model.kind if model.kind != kinds.CLASSES else "a regression"))
    longest = model.config.max_position_embeddings
    lengths = config.lengths or (model.max_seq_length,)
    profile_lengths = config.profile_lengths or tuple(
        length for length in PROFILE_LENGTHS if length <= longest) or (longest,)
    for name, given in (("lengths", lengths), ("profile_lengths", profile_lengths)):
        if max(given) > longest:
            raise UserError("--%s: must be at most %d, the model's max_position_embeddings, got %d"
                            % (name, longest, max(given)))
    shapes = sorted(set(itertools.product(config.batch_sizes or (1,), lengths)))
    profiles = sorted(set(itertools.product(config.profile_batch_sizes or PROFILE_BATCH_SIZES,
                                            profile_lengths)))
    if not 2 <= len(profiles) <= MAX_PROFILES:
        raise UserError("--profile_batch_sizes and --profile_lengths: atc wants 2 to %d profiles, they make "
                        "%d" % (MAX_PROFILES, len(profiles)))
    soc_version = config.soc_version or SOC_VERSION
    ascend_kit.write(folder, model, load_tokenizer(model.tokenizer), checkpoint, shapes, profiles,
                     soc_version, SAMPLES)
    model_card.write(folder, model, checkpoint)
    print("Frozen graphs checked against the trained model's outputs; commands that convert.sh runs "
          "where CANN is:")
    for command in ascend_kit.atc_commands(shapes, profiles, soc_version):
        print("  " + command)
    return ("sh %(output_dir)s/%(version)s/convert.sh && "
            "python3 %(output_dir)s/%(version)s/" + ascend_kit.COMPARISON_FILE)


def _megabytes(folder: str) -> float:
    return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder)
               for name in names) / 1e6
