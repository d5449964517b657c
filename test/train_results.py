"""Reads a trainer's log, and writes losses and results as the published port's launchers do, for the model
zoo's tooling.

  train_${CaseName}_loss.txt   the loss of each line of progress
  ${CaseName}.log              `key = value`, and the keys mean

    BatchSize        records of a batch of one device
    ActualFPS        records a second on all devices, once the pace has settled: all records over all the
                     time; of a run too short for a pace, all records over E2ETrainingTime
    TrainingTime     milliseconds for one batch on each device: 1000 * BatchSize * RankSize / ActualFPS. (The
                     port has milliseconds for pretraining, and seconds, rounded to 0.01, for fine-tuning;
                     here they are always milliseconds.)
    TrainAccuracy    of the last evaluation: of the sentence order for pretraining, of the labels for
                     fine-tuning; None when there was none
    ActualLoss       of the last line of progress
    E2ETrainingTime  seconds from the start of the launcher, evaluation included

All of it is of the last launch alone: one that goes on with a run that was cut off knows nothing of the
time before.
"""
import os
import platform
import re
from dataclasses import dataclass
from typing import Dict, List, NamedTuple, Optional, Sequence

from estimator.training import resume
from etl.common import files
from etl.common.command_line import UserError, flag, run

_STEP = re.compile(r"step (\d+)/\d+  loss (\S+)  ")
_PACE = re.compile(r"  (\S+) examples/s  ")
_RESUMED = re.compile(r"^Resuming from step (\d+)", re.M)
_ACCURACY = re.compile(r"\b(?:sentence_order_accuracy|eval_accuracy) (\d\S*)")


class Line(NamedTuple):
    """A line of progress. examples_per_second is of the steps since the line before; None after a start."""
    step: int
    loss: str
    examples_per_second: Optional[float]


@dataclass(frozen=True)
class ResultsConfig:
    """The flags of this command."""
    log: str = flag("", "what the trainer said; results go beside it", required=True)
    output_dir: str = flag("", "where it trained", required=True)
    network: str = flag("", "name in the model zoo", required=True)
    kind: str = flag("", "performance or accuracy", ("perf", "acc"), required=True)
    rank_size: int = flag(1, "devices that trained together")
    seconds: int = flag(0, "from the launch to its end")


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run("train_results", __doc__, ResultsConfig, write_results, argv)


def write_results(config: ResultsConfig) -> None:
    """Writes both files and prints the results. Raises UserError when the log holds no line of progress."""
    with open(config.log, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    lines = progress_lines(text)
    if not lines:
        raise UserError("%s: no line of progress in it: did it train?" % config.log)
    batch_size = files.read_json(os.path.join(config.output_dir,
                                              resume.RUN_FILE))["flags"]["train_batch_size"]
    begun = _RESUMED.search(text)
    steps = lines[-1].step - (int(begun.group(1)) if begun else 0)
    fps = steady_pace(lines) or steps * batch_size * config.rank_size / max(1, config.seconds)
    accuracies = _ACCURACY.findall(text)
    case_name = "%s_bs%d_%dp_%s" % (config.network, batch_size, config.rank_size, config.kind)
    results: Dict[str, object] = {
        "Network": config.network,
        "RankSize": config.rank_size,
        "BatchSize": batch_size,
        "DeviceType": platform.machine(),
        "CaseName": case_name,
        "ActualFPS": "%.2f" % fps,
        "TrainingTime": "%.2f" % (1000 * batch_size * config.rank_size / fps),
        "TrainAccuracy": accuracies[-1] if accuracies else None,
        "ActualLoss": lines[-1].loss,
        "E2ETrainingTime": config.seconds,
    }
    folder = os.path.dirname(config.log)
    files.write_text(os.path.join(folder, "train_%s_loss.txt" % case_name),
                     "".join(line.loss + "\n" for line in lines))
    path = os.path.join(folder, case_name + ".log")
    files.write_text(path, "".join("%s = %s\n" % item for item in results.items()))
    print("".join("%s = %s\n" % item for item in results.items()) + "Wrote %s" % path)


def progress_lines(text: str) -> List[Line]:
    """The lines of progress among all that the trainer said."""
    found = []
    for line in text.split("\n"):
        step, pace = _STEP.match(line), _PACE.search(line)
        if step:
            found.append(Line(int(step.group(1)), step.group(2), float(pace.group(1)) if pace else None))
    return found


def steady_pace(lines: Sequence[Line]) -> float:
    """Records a second: those of all lines over the time they took; 0 when no line has a pace.

    The first pace after each start (of the training, and after an evaluation) has not settled; it is left out
    if there are others.
    """
    pairs = list(zip(lines, lines[1:]))
    paced = [pair for pair in pairs if pair[1].examples_per_second]
    chosen = [pair for pair in paced if pair[0].examples_per_second is not None] or paced
    steps = sum(line.step - before.step for before, line in chosen)
    time = sum((line.step - before.step) / line.examples_per_second for before, line in chosen)
    return steps / time if time else 0.0


if __name__ == "__main__":
    raise SystemExit(main())
