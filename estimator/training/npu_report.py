"""The report on a training graph for an NPU: faults, loops, memory, operations; nothing is run."""
import dataclasses
import os
from typing import Any, Collection, Dict, List, Mapping, Optional

import tensorflow.compat.v1 as tf

from albert_config import AlbertConfig
from estimator.model.kinds import SPANS
from estimator.npu import devices, sessions, step_graph
from estimator.npu import options as npu_options
from estimator.training import run
from estimator.training.jobs import Job
from estimator.training.step_log import ProgressHook
from etl.common import files
from etl.common.command_line import UserError

GIGA, TERA = 1e9, 1e12
TFLOPS = 256.0  # the published float16 rate of an Ascend 910, the default
PLACES_SHOWN = 5
MEMORY_OF_THE_UPDATE = ("parameters", "gradients", "optimizer", "accumulation")

OPS_FILES = (("framework", "built-in", "tensorflow", "npu_supported_ops.json"),
             ("built-in", "framework", "tensorflow", "npu_supported_ops.json"))
NOT_PLANNED = (                                # not checked without npu_bridge
    "npu_bridge's own loss scale and sum over devices, which are not in the graph",
    "npu_bridge's own gelu and dropout: plain TensorFlow's take their place, under their names",
    "anything else that the installed NPUEstimator adds to the session")
NO_LIST = "whether the adapter takes every op: give --supported_ops its npu_supported_ops.json"
ONLY_A_DEVICE_CAN_TELL = (
    "whether its compiler has every op in these types and shapes",
    "what its compiler fuses and needs in addition, that is its peak memory",
    "float16: accuracy, overflows, the right loss scale",
    "what its own gelu and dropout compute",
    "the times of a step and of collective operations between devices")


def kernels_wanted(model: AlbertConfig, npu_kernels: bool, has_masked_lm: bool,
                   has_head_dropout: bool) -> Dict[str, int]:
    """How many of the device's kernels a training graph has with --npu_kernels: one gelu per layer and one
    for the masked LM's transform; one dropout for the embeddings, three per layer, one for a fine-tuned head
    that drops what it reads."""
    if not npu_kernels:
        return {devices.GELU_OP: 0, devices.DROPOUT_OP: 0}
    layers = model.num_hidden_layers * (model.inner_group_num or 1)
    hidden, attention = model.hidden_dropout_prob > 0, model.attention_probs_dropout_prob > 0
    return {devices.GELU_OP: (layers + has_masked_lm) * (model.hidden_act == "gelu"),
            devices.DROPOUT_OP: (1 + 2 * layers) * hidden + layers * attention + has_head_dropout}


def report_on(job: Job, has_masked_lm: bool, memory_gb: float, report_file: Optional[str],
              supported_ops: Optional[str] = None) -> int:
    """Builds the graphs of a job, prints the report and, if requested, writes it as JSON; returns 1 if
    something would fail."""
    has_head_dropout = not has_masked_lm and job.folder.kind != SPANS
    report = make_report(job, kernels_wanted(job.folder.config, job.flags.npu_kernels, has_masked_lm,
                                             has_head_dropout), memory_gb, read_supported_ops(supported_ops))
    print("\n".join(lines_of(report)))
    if report_file:
        files.write_json(report_file, report)
        print("Wrote %s" % report_file)
    return 1 if report["faults"] else 0


def read_supported_ops(path: Optional[str]) -> Collection[str]:
    """The types in the adapter's own list, by which it decides what goes to a device: the names in an object
    of a JSON file. Nothing where none is named and CANN is not installed."""
    if path is None:
        root = os.environ.get("ASCEND_OPP_PATH") or "/usr/local/Ascend/opp"
        path = next((found for found in (os.path.join(root, *place) for place in OPS_FILES)
                     if os.path.isfile(found)), None)
    found = files.read_json(path) if path else {}
    if not isinstance(found, dict) or path and not found:
        raise UserError("--supported_ops: %s: wanted a JSON object with an entry for each op" % path)
    return found


def make_report(job: Job, wanted: Mapping[str, int], memory_gb: float,
                supported: Collection[str] = ()) -> Dict[str, Any]:
    """All that is found, as JSON has it; bytes, operations and seconds; `wanted`: see `kernels_wanted`;
    `supported`: types of op, see `read_supported_ops`."""
    estimator = run.make_estimator(job)
    flags, device = job.flags, job.device
    peak = flags.device_peak_tflops or TFLOPS
    with tf.Graph().as_default() as graph:
        batches = job.batches(0)()
        features = batches if isinstance(batches,
                                         Mapping) else tf.data.make_initializable_iterator(batches).get_next()
        _require_static(features)
        tf.train.get_or_create_global_step()
        spec = _call_model_fn(estimator, features, tf.estimator.ModeKeys.TRAIN)
        shown = [hook.before_run(None).fetches
                 for hook in spec.training_hooks if isinstance(hook, ProgressHook)]
        ops = step_graph.step_ops([spec.train_op, spec.loss] + tf.nest.flatten(shown))
        memory, flops = step_graph.memory_of(graph, ops), step_graph.flops_of(ops)
    faults = step_graph.faults_of(ops) + step_graph.type_faults(ops) + step_graph.kernel_faults(ops, wanted)
    options = device.options
    if options.computes_in_float16 and (options.modify_mixlist or not options.is_mixed_precision):
        faults += step_graph.float16_faults(ops, npu_options.kept_in_float32(options.modify_mixlist))
    if supported:
        faults += step_graph.unsupported_faults(ops, supported)
    with tf.Graph().as_default() as export_graph:
        modes = tf.estimator.ModeKeys
        _call_model_fn(estimator, _placeholders(features), modes.EVAL if job.data else modes.PREDICT)
    faults += step_graph.export_faults(export_graph)
    session_config = estimator.config.session_config
    faults += [step_graph.Fault(complaint, (), "leave the session to Device.make_estimator")
               for complaint in sessions.session_complaints(session_config)]
    needed = sum(memory[name] for name in MEMORY_OF_THE_UPDATE)
    faults += memory_faults(needed, memory_gb * GIGA)
    return {
        "device": str(device), "run_arguments": device.options.run_arguments(),
        "model": dataclasses.asdict(job.folder.config),
        "parameters": memory["parameters"] // 4, "ops": len(ops),
        "faults": [fault._asdict() for fault in faults],
        "kernels": {name: len(names) for name, names in step_graph.kernels_of(ops).items()},
        "kernels_wanted": dict(wanted), "npu_optimizers": sessions.optimizer_entries(session_config),
        "loop": loops_of(job.schedule.num_train_steps, flags.save_checkpoints_steps,
                         flags.iterations_per_loop or 1, flags.gradient_accumulation_steps),
        "memory_bytes": memory, "memory_of_the_update_bytes": needed,
        "memory_limit_bytes": int(memory_gb * GIGA), "matmul_flops": flops, "peak_tflops": peak,
        "seconds_of_a_batch_at_least": sum(flops.values()) / (peak * TERA),
        "records_of_a_batch": features["input_ids"].shape.as_list()[0],
        "tokens_of_a_record": features["input_ids"].shape.as_list()[1],
        "activations_are_half_precision": device.options.is_half_precision,
        "not_checked": (list(NOT_PLANNED) if isinstance(device, devices.PlannedDevice) else [])
        + ([] if supported else [NO_LIST]),
        "only_a_device_can_tell": list(ONLY_A_DEVICE_CAN_TELL)}


def loops_of(num_train_steps: int, save_checkpoints_steps: int, iterations_per_loop: int,
             accumulation_steps: int) -> Dict[str, int]:
    """The loops of a training run; the trainer has refused step counts that are not whole loops."""
    batches = num_train_steps * accumulation_steps
    return {"num_train_steps": num_train_steps, "batches_of_a_step": accumulation_steps, "batches": batches,
            "batches_of_a_loop": iterations_per_loop, "loops": batches // iterations_per_loop,
            "loops_between_checkpoints": save_checkpoints_steps * accumulation_steps // iterations_per_loop}


def memory_faults(needed: int, limit: float) -> List[Any]:
    """A fault if the update alone, in bytes, does not fit."""
    if needed <= limit:
        return []
    return [step_graph.Fault("parameters, gradients, optimizer and accumulation need %.3g GB of %.3g"
                             % (needed / GIGA, limit / GIGA), (),
                  "use a smaller model, or --gradient_accumulation_steps 1, which keeps no sums")]


def lines_of(report: Mapping[str, Any]) -> List[str]:
    """The report as text."""
    memory, flops, loop = report["memory_bytes"], report["matmul_flops"], report["loop"]
    total_flops, seconds = sum(flops.values()), report["seconds_of_a_batch_at_least"]
    half = memory["activations"] / 2
    kept = half if report["activations_are_half_precision"] else memory["activations"]
    lines = [
        "", "Graph of one batch: {:,} ops, {:,} parameters".format(report["ops"], report["parameters"]),
        "  passed to the device: " + ", ".join("%s %s" % pair
                                             for pair in sorted(report["run_arguments"].items())),
        "Loops: {batches:,} batches ({num_train_steps:,} steps of {batches_of_a_step}) in "
        "{loops:,} loops of {batches_of_a_loop}; a checkpoint every "
        "{loops_between_checkpoints:,} loops and at the end".format(**loop),
        "Memory of {:.1f} GB: {:.2f} for the update ({})".format(
            report["memory_limit_bytes"] / GIGA, report["memory_of_the_update_bytes"] / GIGA,
            ", ".join("%s %.2f" % (name, memory[name] / GIGA) for name in MEMORY_OF_THE_UPDATE)),
        "  activations that the backward pass reads: %.2f GB in float32, %.2f in float16; fused ops keep less"
        % (memory["activations"] / GIGA, half / GIGA)]
    if report["memory_of_the_update_bytes"] + kept > report["memory_limit_bytes"]:
        lines.append("  this may not fit: a smaller --train_batch_size with --gradient_accumulation_steps "
                     "keeps less")
    lines.append("Matrix products of a batch: %.3g operations (%.3g forward, %.3g backward): at %g TFLOP/s "
                 "at least %.3g s, at most %.0f records/s"
                 % (total_flops, flops["forward"], flops["backward"], report["peak_tflops"], seconds,
                    report["records_of_a_batch"] / seconds))
    entries = ["NpuOptimizer with " + ", ".join("%s %s" % pair for pair in sorted(entry.items()))
               for entry in report["npu_optimizers"]]
    lines.append("Session: " + ("; ".join(entries) or "no NpuOptimizer"))
    lines.append("The device's kernels: " + ", ".join("%s %d (at least %d)"
                                                      % (name, count, report["kernels_wanted"][name])
                                                      for name, count in report["kernels"].items()))
    lines += ["Not checked: " + text for text in report["not_checked"]]
    lines += ["Only a device can show: " + text for text in report["only_a_device_can_tell"]]
    for fault in report["faults"]:
        places = list(fault["places"][:PLACES_SHOWN])
        more = len(fault["places"]) - len(places)
        places += ["and %d more" % more] if more else []
        lines.append("WOULD FAIL: "
                     + ": ".join(filter(None, [fault["what"], ", ".join(places), fault["change"]])))
    return lines + ["Nothing found that would fail" if not report["faults"]
                    else "Faults: %d" % len(report["faults"])]


def _call_model_fn(estimator: Any, features: Mapping[str, Any], mode: str) -> tf.estimator.EstimatorSpec:
    return estimator.model_fn(features, None, mode, estimator.config)


def _require_static(features: Mapping[str, Any]) -> None:
    """Raises UserError for batches that cannot be analysed: the model cannot be built from them for a
    device."""
    dynamic = ["%s %s" % (name, value.shape)
               for name, value in sorted(features.items()) if not value.shape.is_fully_defined()]
    if dynamic:
        raise UserError("input_fn's batches have dynamic shapes, which a device cannot use: "
                        "%s: make them static (drop_remainder)" % ", ".join(dynamic))


def _placeholders(features: Mapping[str, Any]) -> Dict[str, Any]:
    """Batches to evaluate, of the same shapes."""
    made = {name: tf.placeholder(value.dtype, value.shape) for name, value in features.items()}
    return dict(made, is_real_example=tf.placeholder(tf.int32, features["input_ids"].shape[:1]))
