"""Checkpoint files: finds, identifies, loads (completely or not at all) and writes them."""
import contextlib
import os
import re
import tempfile
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.python.training import checkpoint_management

import albert_config
from albert_config import AlbertConfig
from estimator.model import heads, modeling
from estimator.optimization.optimizers import BATCHES_TAKEN, SLOT_SUFFIXES
from estimator.weights import checkpoint_list, model_folder, seals
from estimator.weights.model_folder import STATE_FILE
from etl.common.command_line import UserError

Shape = Tuple[int, ...]

# the last three hold a dynamic loss scale
_OF_THE_TRAINING = ("global_step", BATCHES_TAKEN, "loss_scale", "good_steps", "bad_steps")
_TF2_ENDING, _TF2_GRAPH = ".ATTRIBUTES/VARIABLE_VALUE", "_CHECKPOINTABLE_OBJECT_GRAPH"
_UNTOLD = "not told by shapes: %s; go by the config that the checkpoint came with"
RELEASED_NAMES = ("albert_model.ckpt", "bert_model.ckpt")


class Identity(NamedTuple):
    """What variable names and shapes reveal about a model: neither its activation nor pre-LN or post-LN."""
    family: str                                # as AlbertConfig.family
    vocab_size: int
    embedding_size: int                        # plain BERT: its hidden_size
    hidden_size: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    num_ffn_groups: int
    layer_scopes: Tuple[str, ...]              # of the layers with their own weights, sorted

    def differences(self, wanted: "Identity") -> List[str]:
        """One phrase for each field in which the two differ, such as "hidden_size is 312, wanted 768"."""
        return ["%s is %s, wanted %s" % (field, listed(got, 2), listed(want, 2))
                for field, got, want in zip(self._fields, self, wanted) if got != want]


class Loading(NamedTuple):
    """What will be loaded from where; executed by `load`."""
    checkpoint: str                            # prefix of the files
    assignment_map: Dict[str, tf.Variable]     # variables of the graph by the names in the file
    new: Tuple[str, ...]                       # variables of the graph that are initialized
    unused: Tuple[str, ...]  # names in the file that the graph does not need, without slots
    notes: Tuple[str, ...]                     # notes for the user, one line each

    def summary(self) -> str:
        """One line for the log, and one per note."""
        loaded = sum(is_weight(name) for name in self.assignment_map)
        line = "loaded %d variables from %s" % (loaded, self.checkpoint)
        for what, names in (("new", self.new), ("unused", self.unused)):
            if names:
                line += "; %d %s: %s" % (len(names), what, listed(names))
        return "\n".join((line,) + self.notes)


class SaveHook(tf.train.CheckpointSaverHook):
    """Saves checkpoints as TensorFlow's own hook does, but no graph: nothing reads it, and writing it as text
    and beside each checkpoint takes a fifth of a short training's time. The event file has one, which
    TensorBoard shows.

    To be made while the training graph is built, whose variables it saves.
    """

    def __init__(self, folder: str, save_steps: int, most: int) -> None:
        saver = _WeightsSaver(sharded=True, max_to_keep=most, save_relative_paths=True, defer_build=True)
        tf.add_to_collection(tf.GraphKeys.SAVERS, saver)       # where the session looks for what restores it
        super().__init__(folder, save_steps=save_steps, saver=saver)

    def after_create_session(self, session: tf.Session, coord: tf.train.Coordinator) -> None:
        step = session.run(self._global_step_tensor)
        self._save(session, step)
        self._timer.update_last_triggered_step(step)


class _WeightsSaver(tf.train.Saver):
    def save(self, *args: Any, **kwargs: Any) -> str:
        return super().save(*args, **dict(kwargs, write_meta_graph=False))


class TidyHook(tf.train.SessionRunHook):
    """Keeps the requested number of checkpoints, and only their weights; must run after the saver.

    TensorFlow's own savers do not do it (see `only_the_hook_removes`): they only know the checkpoints of one
    stretch of a training run. NPUEstimator's own hook always keeps five in its older release; and it also
    writes the training graph, with the device's ops, which stock TensorFlow cannot read.
    """

    def __init__(self, folder: str, keep_checkpoint_max: int) -> None:
        self._folder, self._most = folder, keep_checkpoint_max
        self._seen: Any = None  # identifies the list last read, to detect a newer one

    def begin(self) -> None:
        self._known = checkpoint_list.names(self._folder)

    def after_run(self, run_context: Any, run_values: Any) -> None:
        self._tidy()

    def end(self, session: tf.Session) -> None:
        self._tidy()

    def _tidy(self) -> None:
        if checkpoint_list.state(self._folder) == self._seen:     # nothing has been saved since
            return
        self._known = checkpoint_list.keep(self._folder, self._known, self._most)
        for name in ["graph.pbtxt"] + [name + ".meta" for name in self._known]:
            path = os.path.join(self._folder, name)
            if os.path.isfile(path):
                os.remove(path)
        self._seen = checkpoint_list.state(self._folder)


@contextlib.contextmanager
def only_the_hook_removes() -> Iterator[None]:
    """While the block runs, TensorFlow's savers remove no checkpoint: only `TidyHook` does, and only listed
    ones.

    They would remove what a list names in any folder, and treat its path as a pattern.
    """
    before = checkpoint_management.remove_checkpoint
    checkpoint_management.remove_checkpoint = lambda *args, **kwargs: None
    try:
        yield
    finally:
        checkpoint_management.remove_checkpoint = before


def resolve(path: str, flag_name: str = "init_checkpoint") -> str:
    """The prefix of the checkpoint that `path` refers to.

    Args:
      path: a prefix, one of the files of a checkpoint, or a folder: its latest checkpoint by its `checkpoint`
        file, otherwise a released name, otherwise the only checkpoint in it.
      flag_name: the flag that gave the path, for the message.

    Raises:
      UserError: there is none, or several without a list; names what was looked for. Also for an incomplete
        copy, and a path that TensorFlow would treat as a pattern.
    """
    prefix = _find(path, flag_name)
    checkpoint_list.require_no_pattern(prefix, flag_name)
    seals.require_whole(prefix)
    return prefix


def _find(path: str, flag_name: str) -> str:
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    if not os.path.isdir(path):
        if os.path.isfile(prefix + ".index"):
            return prefix
        raise UserError("--%s: %s: no checkpoint there; looked for %s.index" % (flag_name, path, prefix))
    listed = _listed_in(path)
    if listed and os.path.isfile(listed[-1] + ".index"):
        return listed[-1]
    for name in RELEASED_NAMES:                # released folders may hold a stale `checkpoint` file
        if os.path.isfile(os.path.join(path, name + ".index")):
            return os.path.join(path, name)
    if listed:
        raise UserError(
            "--%s: %s names %s as the newest, which is not there: restore it, or name another checkpoint"
            % (flag_name, os.path.join(path, STATE_FILE), os.path.basename(listed[-1])))
    found = sorted(name[:-len(".index")] for name in os.listdir(path) if name.endswith(".index"))
    if len(found) == 1:
        return os.path.join(path, found[0])
    if found:
        raise UserError("--%s: %s: several checkpoints and no file that says which: name one of %s"
                        % (flag_name, path, ", ".join(found)))
    raise UserError("--%s: %s: no checkpoint there; looked for %s"
                    % (flag_name, path, ", ".join(name + ".index" for name in RELEASED_NAMES + ("*",))))


def newest(folder: str, count: int) -> List[str]:
    """Prefixes of the `count` newest checkpoints in `folder`, oldest first. Raises UserError if there are
    fewer."""
    prefixes = kept_in(folder)
    if not 1 <= count <= len(prefixes):
        raise UserError("--last must be from 1 to the number of checkpoints in %s, which is %d; got %d"
                        % (folder, len(prefixes), count))
    return prefixes[-count:]


def kept_in(folder: str) -> List[str]:
    """Prefixes of the checkpoints that a training run keeps in `folder`, oldest first."""
    return [prefix for prefix in _listed_in(folder) if os.path.isfile(prefix + ".index")]


def read_shapes(checkpoint: str) -> Dict[str, Shape]:
    """Shapes of all variables in a checkpoint, by name. Raises UserError if its index cannot be read."""
    reader = open_reader(checkpoint)
    return {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}


def identify(shapes: Dict[str, Shape]) -> Identity:
    """The kind of model the variables belong to. Raises UserError if they are no encoder of any family, or
    have other names than here."""
    def shape_of(ending: str, ranks: Sequence[int] = (2,)) -> Shape:
        for name in sorted(shapes):
            if name.startswith("bert/") and name.endswith(ending):
                if len(shapes[name]) not in ranks:
                    raise UserError("%s has the shape %s, wanted %d dimensions"
                                    % (name, list(shapes[name]), ranks[0]))
                return shapes[name]
        raise UserError(_other_names(shapes) or
                        "neither an ALBERT nor a BERT checkpoint: no variable bert/...%s" % ending)
    vocab_size, embedding_size = shape_of("embeddings/word_embeddings")
    hidden_size = shape_of("/self/query/kernel")[0]
    intermediate = shape_of("intermediate/dense/kernel", (2, 3))
    num_ffn_groups = intermediate[2] if len(intermediate) == 3 else 1
    scope = re.compile(r"bert/encoder/(layer_shared|layer_\d+|transformer/group_\d+/inner_group_\d+)/")
    scopes = {match.group(1) for match in map(scope.match, shapes) if match}
    if "bert/embeddings/word_embeddings_2" in shapes:
        family = "albert_zh"
    else:
        family = "google" if any(name.startswith("transformer/") for name in scopes) else "bert"
    return Identity(family, vocab_size, embedding_size, hidden_size, intermediate[1] * num_ffn_groups,
                    shape_of("embeddings/position_embeddings")[0],
                    shape_of("embeddings/token_type_embeddings")[0], num_ffn_groups, tuple(sorted(scopes)))


def identify_file(checkpoint: str) -> Identity:
    """As `identify`, of a checkpoint's variables; the message names it."""
    shapes = read_shapes(checkpoint)
    try:
        return identify(shapes)
    except UserError as error:
        raise UserError("%s: %s" % (checkpoint, error))


def identity_of(config: AlbertConfig) -> Identity:
    """The result of `identify` for a checkpoint of this model."""
    scopes = {modeling.layer_scope(config, layer, inner) for layer in range(config.num_hidden_layers)
              for inner in range(config.inner_group_num or 1)}
    return Identity(config.family, config.vocab_size, config.embedding_size or config.hidden_size,
                    config.hidden_size,
                    config.intermediate_size, config.max_position_embeddings, config.type_vocab_size,
                    config.num_ffn_groups, tuple(sorted(scopes)))


def fitting_configs(identity: Identity) -> Dict[str, AlbertConfig]:
    """The shipped configs whose checkpoints have these shapes, by name; their maths may differ."""
    shipped = {name: albert_config.load(name) for name in albert_config.shipped_names()}
    return {name: config for name, config in shipped.items() if identity_of(config) == identity}


def plan_loading(checkpoint: str, config: AlbertConfig, *, new_prefixes: Sequence[str] = (),
              with_slots: bool = False) -> Loading:
    """Compares the graph's trainable variables with a checkpoint.

    Args:
      checkpoint: prefix, from `resolve`.
      config: the model's, whose variables are in the default graph.
      new_prefixes: beginnings of the names that may be missing from the file or have another shape there,
        since their head may be new (heads.CLASSIFIER_PREFIXES); they are loaded if they fit. A part in
        heads.PRETRAINING_PARTS is new as a whole or not at all.
      with_slots: whether the optimizer's moments are loaded if the file has them and nothing is new, to
        continue training. Call this after the train op is built.

    Raises:
      UserError: the file cannot be read, or a variable is missing or has another shape; names it, what the
        checkpoint is instead, and the shipped configs with its shapes.
    """
    shapes = read_shapes(checkpoint)
    require_float32(checkpoint)
    wanted = {variable.op.name: variable for variable in tf.trainable_variables()}
    parts_there = tuple(part for part in heads.PRETRAINING_PARTS if any(map(_begins(part), shapes)))
    may_be_new = {name for name in wanted
                  if name.startswith(tuple(new_prefixes)) and not name.startswith(parts_there)}
    fitting = {name for name, variable in wanted.items()
               if shapes.get(name) == tuple(variable.shape.as_list())}
    _require_fit(checkpoint, shapes, config,
                 {name: wanted[name] for name in set(wanted) - fitting - may_be_new})

    assignment_map = {name: wanted[name] for name in sorted(fitting)}
    notes = []
    if config.family == "albert_zh" and config.ln_type is None:
        notes.append("ln_type is not in the config: post-LN is assumed")
    if with_slots and len(fitting) == len(wanted):     # else they are of another task
        slots = {variable.op.name: variable for variable in tf.global_variables()
                 if variable.op.name.endswith(SLOT_SUFFIXES)}
        kept = {name: variable for name, variable in slots.items()
                if shapes.get(name) == tuple(variable.shape.as_list())}
        assignment_map.update(kept)
        notes.append("%d of %d optimizer slots are in the file; the others start at 0"
                     % (len(kept), len(slots)))
    unused = (name for name in shapes if name not in assignment_map and is_weight(name))
    return Loading(checkpoint, assignment_map, tuple(sorted(set(wanted) - fitting)), tuple(sorted(unused)),
                    tuple(notes))


def load(loading: Loading) -> None:
    """Makes the variables' initializers read the checkpoint. Raises UserError if its data is damaged."""
    check_data(loading.checkpoint, loading.assignment_map)
    tf.train.init_from_checkpoint(loading.checkpoint, loading.assignment_map)


def restore(session: tf.Session, checkpoint: str, config: AlbertConfig) -> tf.train.Saver:
    """Loads the trainable variables of the session's graph, the default one; returns a saver of only those.

    Raises UserError as `plan_loading` and `check_data` do.
    """
    loading = plan_loading(checkpoint, config)
    check_data(checkpoint, loading.assignment_map)
    saver = tf.train.Saver(loading.assignment_map)
    saver.restore(session, checkpoint)
    return saver


def check_data(checkpoint: str, names: Iterable[str]) -> None:
    """Reads the variables once, checksums included. Raises UserError for one that is truncated, altered or
    not finite."""
    reader = open_reader(checkpoint)
    for name in names:
        try:
            value = reader.get_tensor(name)
        except tf.errors.OpError as error:
            raise UserError("%s: damaged: %s cannot be read: %s" % (checkpoint, name, _first_line(error)))
        if not np.isfinite(value).all():
            raise UserError("%s: %s has values that are not finite" % (checkpoint, name))


def write(prefix: str, values: Dict[str, np.ndarray], flag_name: str) -> None:
    """Writes variables by name under `prefix`, integers as int64, everything else as float32; the files
    appear only when all are complete.

    Raises UserError, naming the flag, if they cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(prefix))
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=folder) as temporary, \
            tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.placeholder(tf.int64 if value.dtype.kind == "i" else tf.float32, value.shape)
                  for value in values.values()]
        save = tf.raw_ops.SaveV2(prefix=os.path.join(temporary, name), tensor_names=list(values),
                                 shape_and_slices=[""] * len(values), tensors=inputs)
        try:
            session.run(save, dict(zip(inputs, values.values())))
        except tf.errors.OpError as error:     # a full disk, most likely
            raise UserError("--%s: %s: %s" % (flag_name, prefix, _first_line(error)))
        for file in sorted(os.listdir(temporary)):  # the data, then the index that completes it
            os.replace(os.path.join(temporary, file), os.path.join(folder, file))


def counts_batches(checkpoint: str) -> bool:
    """Whether a checkpoint, or the newest in a folder, records how many batches its run has taken."""
    return BATCHES_TAKEN in read_shapes(resolve(checkpoint))


def add_batches_taken(prefix: str, batches: int) -> None:
    """Writes the number of batches to a checkpoint that has none.

    The existing values stay in their file under a new name, and the new index appears last: at any moment the
    checkpoint is complete, with or without the number.
    """
    folder, name = os.path.split(os.path.abspath(prefix))
    data = [os.path.join(folder, file) for file in checkpoint_list.files_of(folder, name) if ".data-" in file]
    with tempfile.TemporaryDirectory(prefix=".checkpoint-", dir=folder) as temporary:
        parts = [os.path.join(temporary, part) for part in ("old", "new")]
        for path in data + [os.path.join(folder, name + ".index")]:
            os.link(path, parts[0] + os.path.basename(path)[len(name):])
        write(parts[1], {BATCHES_TAKEN: np.int64(batches)}, "output_dir")
        merged = os.path.join(temporary, "merged", name)
        with tf.Graph().as_default(), tf.Session() as session:
            session.run(tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=merged))
        for file in sorted(os.listdir(os.path.dirname(merged))):                # the data, then the index
            os.replace(os.path.join(os.path.dirname(merged), file), os.path.join(folder, file))
    for path in data:
        os.remove(path)


def describe(checkpoint: str) -> str:
    """The content of a checkpoint: its model, its size, each variable with its shape, and the configs with
    these shapes: those beside it and, unless their maths differ from these, the shipped ones."""
    shapes, identity = read_shapes(checkpoint), identify_file(checkpoint)
    weights = [name for name in sorted(shapes) if is_weight(name)]
    beside = _configs_beside(checkpoint, identity)
    shipped = {name: config for name, config in fitting_configs(identity).items()
               if not beside or _maths(config) in map(_maths, beside.values())}
    lines = [checkpoint] + ["config beside it: " + _named({name: config}) for name, config in beside.items()]
    lines += ["shipped configs of its shapes: " + _named(shipped), _UNTOLD % _untold(identity)]
    lines += ["%s: %s" % (field, listed(value)) for field, value in zip(identity._fields, identity)]
    lines.append("%d variables with %d parameters, %d optimizer slots" % (
        len(weights), sum(int(np.prod(shapes[name])) for name in weights),
        sum(name.endswith(SLOT_SUFFIXES) for name in shapes)))
    return "\n".join(lines + ["  %s %s" % (name, list(shapes[name])) for name in weights])


def _listed_in(folder: str) -> List[str]:
    """Prefixes of the checkpoints in the folder's list, the newest last; they need not exist. None without a
    list."""
    return [os.path.join(folder, name) for name in checkpoint_list.names(folder)]


def open_reader(checkpoint: str) -> Any:
    try:
        return tf.train.NewCheckpointReader(checkpoint)
    except tf.errors.OpError as error:
        raise UserError("%s: not a checkpoint, or a damaged one: %s" % (checkpoint, _first_line(error)))


def require_float32(checkpoint: str) -> None:
    odd = ["%s is %s" % (name, dtype.name)
           for name, dtype in sorted(open_reader(checkpoint).get_variable_to_dtype_map().items())
           if dtype != tf.float32 and name not in _OF_THE_TRAINING]
    if odd:
        raise UserError("%s: wanted float32 values, but %s" % (checkpoint, listed(odd, 3)))


def _require_fit(checkpoint: str, shapes: Dict[str, Shape], config: AlbertConfig,
                 lacking: Dict[str, tf.Variable]) -> None:
    """Raises UserError for `lacking` variables, or if the checkpoint belongs to another model."""
    identity = identify_file(checkpoint)
    complaints = identity.differences(identity_of(config))
    if config.ln_type != "preln" and any(name.startswith("loss/LayerNorm/") for name in shapes):
        complaints.append("it is a pre-LN model, and ln_type in the config is %s" % config.ln_type)
    most = 3 if complaints else len(lacking)   # for another model nearly every variable is wrong
    missing = sorted(name for name in lacking if name not in shapes)
    misshapen = ["%s is %s, wanted %s" % (name, list(shapes[name]), lacking[name].shape.as_list())
                 for name in sorted(lacking) if name in shapes]
    gone = tuple(part for part in heads.PRETRAINING_PARTS if not any(map(_begins(part), shapes)))
    if missing and not complaints and not misshapen and all(name.startswith(gone) for name in missing):
        raise UserError("%s fits the model, but holds the encoder without all of its heads, %d missing: %s; "
                        "estimator.pretrain --new_heads starts them anew"
                        % (checkpoint, len(missing), listed(missing)))
    if missing:
        complaints.append("%d missing: %s" % (len(missing), listed(missing, most)))
    if misshapen:
        complaints.append("%d of another shape: %s" % (len(misshapen), listed(misshapen, most)))
    if complaints:
        raise UserError("%s does not fit the model: %s. It is of the %s family; shipped configs of its "
                        "shapes: %s" % (checkpoint, "; ".join(complaints), identity.family,
                                        _named(fitting_configs(identity))))


def _begins(part: str) -> Callable[[str], bool]:
    return lambda name: name.startswith(part)


def _named(configs: Dict[str, AlbertConfig]) -> str:
    """`tiny_google_fast (hidden_act gelu)`: names, each with what shapes do not tell."""
    return ", ".join("%s (%s)" % (name, ", ".join("%s %s" % pair for pair in _maths(config).items()))
                     for name, config in configs.items()) or "none"


def _maths(config: AlbertConfig) -> Dict[str, str]:
    """What two models of the same shapes may differ in, by field."""
    found = {"hidden_act": config.hidden_act}
    return dict(found, ln_type=config.ln_type or "postln") if config.family == "albert_zh" else found


def _untold(identity: Identity) -> str:
    return "hidden_act and ln_type" if identity.family == "albert_zh" else "hidden_act"


def _configs_beside(checkpoint: str, identity: Identity) -> Dict[str, AlbertConfig]:
    """Configs in a checkpoint's folder whose models have its shapes, by the file's name."""
    folder, found = os.path.dirname(checkpoint) or ".", {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json") and name != model_folder.DESCRIPTION_FILE:
            with contextlib.suppress(albert_config.ConfigError, OSError):
                config = albert_config.load(os.path.join(folder, name))
                shapes = identity_of(config)
                if config.num_ffn_groups == 1:     # published configs do not say it
                    shapes = shapes._replace(num_ffn_groups=identity.num_ffn_groups)
                if shapes == identity:
                    found[name] = config
    return found


def _other_names(shapes: Dict[str, Shape]) -> Optional[str]:
    """What is wrong with the names where they are those of another way of saving; None where they are not."""
    for name in sorted(shapes):
        if name.endswith(_TF2_ENDING) or name == _TF2_GRAPH:
            return ("a checkpoint of TensorFlow 2's objects, with variables such as %s: save the model there "
                    "by names, with tf.compat.v1.train.Saver" % max(shapes, key=len))
        if re.search(r"(^|/)bert/embeddings/word_embeddings(:\d+)?$", name):
            return ("its variables are not called as here: %s, wanted bert/embeddings/word_embeddings: save "
                    "them once more under the plain names (docs/checkpoints.md)" % name)
    return None


def is_weight(name: str) -> bool:
    return name not in _OF_THE_TRAINING and not name.endswith(SLOT_SUFFIXES)


def listed(value: Any, most: int = 20) -> str:
    """The value as text; of a sequence at most so many items, and the number of others."""
    if not isinstance(value, (tuple, list)):
        return str(value)
    more = len(value) - most
    return ", ".join(value[:most]) + (" and %d more" % more if more > 0 else "")


def _first_line(error: tf.errors.OpError) -> str:
    return (error.message or str(error)).split("\n")[0]
