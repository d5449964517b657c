"""What a checkpoint is: by what stands beside it or, where nothing does, by flags; held against its shapes
and its vocabulary.

Every command that takes a checkpoint and anything that holds token ids, or a vocabulary, compares the two
here: ids of another vocabulary load and train as if nothing were wrong.
"""
import os
import re
from dataclasses import replace
from typing import Any, Dict, Optional

import albert_config
from albert_config import AlbertConfig
from estimator.weights import checkpoint_files, model_folder
from estimator.weights.model_folder import DESCRIPTION_FILE, ModelFolder
from etl.common import files
from etl.common.command_line import UserError
from etl.text.tokenization import TokenizerConfig, load_tokenizer

SHIPPED_CONFIG = "tiny"                        # of those that albert_config brings, the one to begin with
RELEASED_VOCABULARIES = ("vocab.txt", "vocab_chinese.txt")           # as released folders call them

_TOKENIZER_FLAGS = ("vocab_file", "spm_model_file", "do_lower_case")
_UNUSED = re.compile(r"\[unused\d+\]|<unused_?\d+>")


def from_flags(config: AlbertConfig, tokenizer: TokenizerConfig, max_seq_length: int,
               **fields: Any) -> ModelFolder:
    """A ModelFolder of a user's choice. Raises UserError that names the flag, or the vocabulary of another
    size than the config's."""
    vocab_size = len(load_tokenizer(tokenizer).vocabulary)
    if vocab_size != config.vocab_size:
        raise UserError("vocab_size is %d in the config, but the vocabulary %s has %d entries"
                        % (config.vocab_size, tokenizer.vocabulary_file, vocab_size))
    try:
        return ModelFolder(config, tokenizer, max_seq_length, **fields)
    except ValueError as error:
        raise UserError("--%s" % error)


def describe(flags: Any, checkpoint: Optional[str], flag_name: str = "init_checkpoint", *,
             flags_may_repeat: bool = False, **fields: Any) -> ModelFolder:
    """What a checkpoint is: what stands beside it or, where nothing does, the flags say.

    Args:
      flags: a command's; of albert_config_file, vocab_file, spm_model_file and do_lower_case those that it
        has. None: not given.
      checkpoint: its prefix, or any path in its folder. None: there is none, and what the flags leave open is
        as shipped.
      flag_name: which flag names the checkpoint.
      flags_may_repeat: whether flags may stand beside a description: then the vocabulary must be the same,
        and config and do_lower_case of the flags are preferred.
      fields: of ModelFolder, such as `task`, that are not those beside the checkpoint.

    Raises UserError for flags that are missing, too many or do not fit.
    """
    found = model_folder.beside(checkpoint) if checkpoint else None
    if checkpoint:
        _check_flags(flags, checkpoint, flag_name, found, flags_may_repeat)
    if flags.albert_config_file or not found:
        config = load_config(flags.albert_config_file or SHIPPED_CONFIG, checkpoint)
    else:
        config = found.config
    known: Dict[str, Any] = {"max_seq_length": config.max_position_embeddings}
    if found:
        known = {name: getattr(found, name)
                 for name in ("max_seq_length", "task", "labels", "data_manifest_sha256", "kind", "reading",
                              "tagging", "labelling")}
    return from_flags(config, _choose_tokenizer(flags, checkpoint, found), **dict(known, **fields))


def load_config(name_or_path: str, checkpoint: Optional[str]) -> AlbertConfig:
    """A config by name or file; what the published files of Google's fast variants leave out is as in the
    checkpoint.

    Args:
      checkpoint: prefix, or a path in a folder without checkpoints, which then tell nothing; None: there is
        none.
    """
    config = albert_config.load(name_or_path)
    if checkpoint and config.family == "google" and os.path.isfile(checkpoint + ".index"):
        groups = checkpoint_files.identify_file(checkpoint).num_ffn_groups
        if config.num_ffn_groups == 1 and groups > 1:
            print("num_ffn_groups is not in %s: it is %d in %s" % (name_or_path, groups, checkpoint))
            return replace(config, num_ffn_groups=groups)
    return config


def require_vocabulary(tokenizer: TokenizerConfig, source: str, checkpoint: str) -> None:
    """Raises UserError when token ids mean something else to a checkpoint than to what it is given.

    What they mean to the checkpoint is told by the description beside it or, where there is none, by the
    vocabulary that a released one lies with. An entry that is [unused…] in one of the two may be anything in
    the other: nothing has been learned of it.

    Args:
      tokenizer: of what the checkpoint is given: records, rows, a flag.
      source: what that is, to begin the message with.
      checkpoint: prefix.
    """
    learned = _tokenizer_beside(checkpoint, tokenizer)
    if learned is None:
        print("%s: no vocabulary lies beside it: it is taken to have been trained with %s"
              % (checkpoint, tokenizer.vocabulary_file))
        return
    ours, theirs = tokenizer.vocabulary_file, learned.vocabulary_file
    if files.sha256_of_file(ours) == files.sha256_of_file(theirs):
        return
    given, wanted = (load_tokenizer(found).vocabulary.tokens for found in (tokenizer, learned))
    odd = [number for number, (one, other) in enumerate(zip(given, wanted))
           if one != other and not (_UNUSED.fullmatch(one) or _UNUSED.fullmatch(other))]
    if odd or len(given) != len(wanted):
        how = "it has %d entries, that one %d" % (len(given), len(wanted)) if not odd else (
            "%d of %d entries differ, the first in line %d: %s, there %s"
            % (len(odd), len(wanted), odd[0] + 1, given[odd[0]], wanted[odd[0]]))
        raise UserError("%s: %s is not the vocabulary that the model was trained with, %s: %s"
                        % (source, ours, theirs, how))


def _tokenizer_beside(checkpoint: str, like: TokenizerConfig) -> Optional[TokenizerConfig]:
    found = model_folder.beside(checkpoint)
    if found:
        return found.tokenizer
    folder = os.path.dirname(checkpoint)
    if like.spm_model_file:
        models = [name for name in os.listdir(folder or ".") if name.endswith(".model")]
        return TokenizerConfig(spm_model_file=os.path.join(folder, models[0])) if len(models) == 1 else None
    for name in RELEASED_VOCABULARIES:
        if os.path.isfile(os.path.join(folder, name)):
            return TokenizerConfig(os.path.join(folder, name))
    return None


def _check_flags(flags: Any, checkpoint: str, flag_name: str, found: Optional[ModelFolder],
                 may_repeat: bool) -> None:
    given = [name for name in ("albert_config_file",) + _TOKENIZER_FLAGS
             if getattr(flags, name, None) is not None]
    if found and given and not may_repeat:
        raise UserError("--%s is for checkpoints without a description, but %s has one: leave the flag out"
                        % (given[0], os.path.dirname(checkpoint)))
    vocabularies = [name for name in ("vocab_file", "spm_model_file") if hasattr(flags, name)]
    if not found and not (flags.albert_config_file and any(getattr(flags, name) for name in vocabularies)):
        raise UserError("--%s: beside %s there is no %s to describe it: give --albert_config_file and %s" % (
            flag_name, checkpoint, DESCRIPTION_FILE, " or ".join("--" + name for name in vocabularies)))


def _choose_tokenizer(flags: Any, checkpoint: Optional[str], found: Optional[ModelFolder]) -> TokenizerConfig:
    """The tokenizer of the flags, else of the model; a vocabulary that is not the model's is refused."""
    vocab_file, spm_model_file, do_lower_case = (getattr(flags, name, None) for name in _TOKENIZER_FLAGS)
    tokenizer = found.tokenizer if found else TokenizerConfig(albert_config.vocab_path())
    if spm_model_file:
        tokenizer = TokenizerConfig(do_lower_case=tokenizer.do_lower_case, spm_model_file=spm_model_file)
    elif vocab_file:
        tokenizer = TokenizerConfig(vocab_file, tokenizer.do_lower_case)
    if checkpoint and (spm_model_file or vocab_file):
        require_vocabulary(tokenizer, "--%s" % ("spm_model_file" if spm_model_file else "vocab_file"),
                           checkpoint)
    return tokenizer if do_lower_case is None else replace(tokenizer, do_lower_case=do_lower_case)
