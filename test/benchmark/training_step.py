"""What a pretraining step costs: ours beside the older tools' way, in turn, in one run; and beside both the
matrix products of ours alone, at their own shapes, which no step of this model can beat.

  python test/benchmark/training_step.py --config tiny --batch 8 --length 128
  python test/benchmark/training_step.py --config base --batch 4 --length 512 --share_real 0.82
  python test/benchmark/training_step.py --share_real 0.379 --spread 0.168  # rows of 27 to 70 tokens of 128
"""
import dataclasses
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import tensorflow.compat.v1 as tf

import albert_config
import plain_training_step
import results
from albert_config import AlbertConfig
from estimator.training import model_fn
from estimator.training.model_fn import TrainingConfig
from etl.common.command_line import flag, run

MASKED_SHARE = 0.15
OURS, PRODUCTS = "ours", "products alone"
Step = Callable[[], Optional[float]]           # runs a step, returns its loss if it has one


@dataclass(frozen=True)
class StepConfig:
    """The flags of this benchmark."""
    config: str = flag("tiny", "a shipped config of the albert_zh family, by name")
    batch: int = flag(8, "records of a step")
    length: int = flag(128, "tokens of a record")
    share_real: float = flag(1.0, "share of these that is no padding, the mean over records")
    spread: Optional[float] = flag(
        None, "how far rows are shorter or longer, as a share; without it as far as they can be")
    steps: int = flag(5, "steps of a round")
    rounds: int = flag(5, "rounds of each")
    threads: int = flag(2, "threads of TensorFlow")
    results: Optional[str] = flag(None, "file to add the rounds to, as JSON lines")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("training_step", __doc__, StepConfig, benchmark, argv)


def benchmark(flags: StepConfig) -> None:
    model = dataclasses.replace(albert_config.load(flags.config), hidden_dropout_prob=0.0,
                                attention_probs_dropout_prob=0.0)
    batch = make_batch(flags, model.vocab_size)
    theirs = make_session(flags, batch, lambda features: plain(model, features))
    own = make_session(flags, batch, lambda features: ours(model, features))
    steps = {"older tools": step_of(*theirs), OURS: step_of(*own), PRODUCTS: products_alone(flags, own[0])}
    first = {name: step() for name, step in steps.items()}
    wall: Dict[str, List[float]] = {name: [] for name in steps}
    cpu: Dict[str, List[float]] = {name: [] for name in steps}
    for _ in range(flags.rounds):
        for name, step in steps.items():
            step()
            begin, begin_cpu = time.time(), cpu_seconds()
            for _ in range(flags.steps):
                step()
            wall[name].append((time.time() - begin) / flags.steps)
            cpu[name].append((cpu_seconds() - begin_cpu) / flags.steps)
    tokens = int(batch["input_mask"].sum())
    print("%s, %d x %d, %d real tokens of %d, LAMB, dropout 0, %d rounds of %d steps, %d threads" % (
        flags.config, flags.batch, flags.length, tokens, flags.batch * flags.length, flags.rounds,
        flags.steps, flags.threads))
    for name in steps:
        print("%-14s wall %.3f s (%.3f to %.3f), %.0f real tokens/s; CPU %.3f s (%.3f to %.3f)%s" % (
            name, statistics.median(wall[name]), min(wall[name]), max(wall[name]),
            tokens / statistics.median(wall[name]),
            statistics.median(cpu[name]), min(cpu[name]), max(cpu[name]),
            "" if first[name] is None else "; first loss %.6f" % first[name]))
    what = "%s, %d × %d, %.0f %% real tokens" % (
        flags.config, flags.batch, flags.length, 100 * tokens / (flags.batch * flags.length))
    for name, unit, times in (("wall", "s a step", wall), ("CPU", "CPU-s a step", cpu)):
        ratio, share = (statistics.median(upper / lower for upper, lower in zip(times[above], times[below]))
                        for above, below in (("older tools", OURS), (PRODUCTS, OURS)))
        print("%s: ours is %.2f times as fast (median of rounds); its products alone take %.0f %% of its time"
              % (
                  name, ratio, 100 * share))
        results.append(flags.results, "training_step", what, unit, times)


def make_batch(flags: StepConfig, vocab_size: int) -> Dict[str, np.ndarray]:
    """Random records; lengths spread evenly around the share of real tokens; as many predictions as the
    builder makes."""
    rng = np.random.RandomState(1)
    spread = min(1 - flags.share_real, flags.share_real) if flags.spread is None else flags.spread
    shares = np.linspace(flags.share_real - spread, flags.share_real + spread, flags.batch)
    lengths = np.clip(np.round(shares * flags.length), 8, flags.length).astype(int)
    predictions = int(round(MASKED_SHARE * flags.length))
    places = np.arange(flags.length)
    mask = (places < lengths[:, np.newaxis]).astype(np.int32)
    counts = np.maximum(1, np.round(MASKED_SHARE * lengths)).astype(int)
    positions = np.zeros((flags.batch, predictions), np.int32)
    for row, (length, count) in enumerate(zip(lengths, counts)):
        positions[row, :count] = np.sort(rng.choice(np.arange(1, length), count, replace=False))
    weights = (np.arange(predictions) < counts[:, np.newaxis]).astype(np.float32)
    return {"input_ids": rng.randint(5, vocab_size, mask.shape).astype(np.int32) * mask, "input_mask": mask,
            "segment_ids": (places >= lengths[:, np.newaxis] // 2).astype(np.int32) * mask,
            "masked_lm_positions": positions, "masked_lm_weights": weights,
            "masked_lm_ids": rng.randint(5, vocab_size,
                                         positions.shape).astype(np.int32) * weights.astype(np.int32),
            "next_sentence_labels": rng.randint(0, 2, (flags.batch, 1)).astype(np.int32)}


def plain(model: AlbertConfig, features: Dict[str, tf.Tensor]) -> Any:
    loss = plain_training_step.training_loss(model, features)
    return loss, plain_training_step.lamb_step(loss, tf.constant(0.00176))


def ours(model: AlbertConfig, features: Dict[str, tf.Tensor]) -> Any:
    make_spec = model_fn.pretraining_model_fn(model,
                                              TrainingConfig("lamb", 0.00176, 10 ** 6, 0, random_seed=1))
    spec = make_spec(features, tf.estimator.ModeKeys.TRAIN)
    return spec.loss, spec.train_op


def make_session(flags: StepConfig, batch: Dict[str, np.ndarray],
                 build: Callable[[Dict[str, tf.Tensor]], Any]) -> Any:
    """(session, fetches): a graph of its own, with values that depend on the variable's name alone."""
    graph = tf.Graph()
    with graph.as_default():
        features = {name: tf.constant(values) for name, values in batch.items()}
        loss, train_op = build({name: tf.placeholder_with_default(value, value.shape)
                                for name, value in features.items()})
        session = start_session(flags)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for variable in tf.trainable_variables():
            rng = np.random.RandomState(sum(variable.op.name.encode()))
            if not variable.op.name.endswith(("/gamma", "/beta", "bias")):
                variable.load(rng.normal(0, 0.02, variable.shape.as_list()).astype(np.float32), session)
    return session, [loss, train_op]


def make_step(*given: Any) -> Step:
    """One that runs what `make_session` makes."""
    return step_of(*make_session(*given))


def step_of(session: tf.Session, fetches: Any) -> Step:
    return lambda: float(session.run(fetches)[0])


def products_alone(flags: StepConfig, session: tf.Session) -> Step:
    """All matrix products of the session's graph, at the shapes that they have in a step, without what lies
    between them."""
    found = [op for op in session.graph.get_operations()
             if op.type in ("MatMul", "BatchMatMul", "BatchMatMulV2")]
    with session.graph.as_default():
        shapes = session.run([[tf.shape(side) for side in op.inputs] for op in found])
    with tf.Graph().as_default():
        sides: Dict[Any, Any] = {}             # one tensor for all of a shape
        products = []
        for op, (left, right) in zip(found, shapes):
            for shape in (tuple(left), tuple(right)):
                if shape not in sides:
                    sides[shape] = tf.get_variable("side_%d" % len(sides), shape,
                                                   initializer=tf.random_uniform_initializer(-1, 1))
            names = ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")
            transposed = dict(zip(("transpose_a", "transpose_b"), map(op.get_attr, names)))
            products.append(tf.matmul(sides[tuple(left)], sides[tuple(right)], **transposed).op)
        alone = start_session(flags, tf.OptimizerOptions.L0)  # at L1 products that are alike would be one
        alone.run(tf.global_variables_initializer())
        everything = tf.group(*products)

    return lambda: alone.run(everything)


def start_session(flags: StepConfig, level: Any = tf.OptimizerOptions.L1) -> tf.Session:
    options = tf.GraphOptions(optimizer_options=tf.OptimizerOptions(opt_level=level))
    if level == tf.OptimizerOptions.L0:
        options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=flags.threads, graph_options=options,
                                            inter_op_parallelism_threads=flags.threads))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
