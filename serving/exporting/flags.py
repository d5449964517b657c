"""The flags of exporting."""
from dataclasses import dataclass
from typing import Optional, Tuple

from etl.common.command_line import flag
from etl.text import pairs
from serving.version_files import MAX_VERSION

SAVED_MODEL, ASCEND = "saved_model", "ascend"
SOC_VERSION = "Ascend310P3"
PROFILE_BATCH_SIZES, PROFILE_LENGTHS = (1, 8, 32), (32, 64, 128)
MAX_PROFILES = 100                             # of atc; its minimum is 2


@dataclass(frozen=True)
class ExportConfig:
    """The flags of this command."""
    checkpoint_dir: str = flag("output/finetune",
                               "output folder of estimator.finetune; best/ in it, if any, is preferred")
    output_dir: Optional[str] = flag(None,
                                     "folder of all versions (default: output/export, or output/ascend)")
    version: Optional[int] = flag(None, "name of the new version's folder (default: seconds since 1970, but "
                                  "above the highest there)")
    format: str = flag(SAVED_MODEL, "format to write", (SAVED_MODEL, ASCEND))
    batch_sizes: Tuple[int, ...] = flag((), "ascend: batch sizes of the graphs (default: 1)")
    lengths: Tuple[int, ...] = flag(
        (), "ascend: sequence lengths of the graphs (default: the model's max_seq_length)")
    profile_batch_sizes: Tuple[int, ...] = flag(
        (), "ascend: batch sizes that the graph with open dimensions is compiled for (default: %s)"
        % " ".join(map(str, PROFILE_BATCH_SIZES)))
    profile_lengths: Tuple[int, ...] = flag(
        (), "ascend: lengths that it is compiled for (default: %s, as far as the model goes)"
        % " ".join(map(str, PROFILE_LENGTHS)))
    soc_version: Optional[str] = flag(None, "ascend: the processor that atc compiles for (default: %s)"
                                      % SOC_VERSION)

    def __post_init__(self) -> None:
        if self.version is not None and self.version < 0:
            raise ValueError("version must be at least 0, got %d" % self.version)
        if self.version is not None and self.version > MAX_VERSION:
            raise ValueError("version must be at most %d, got %d" % (MAX_VERSION, self.version))
        for name in ("batch_sizes", "lengths", "profile_batch_sizes", "profile_lengths", "soc_version"):
            if getattr(self, name) and self.format != ASCEND:
                raise ValueError("%s is only for --format %s" % (name, ASCEND))
        for name, least in (("batch_sizes", 1), ("lengths", pairs.MIN_SEQ_LENGTH),
                            ("profile_batch_sizes", 1), ("profile_lengths", pairs.MIN_SEQ_LENGTH)):
            for value in getattr(self, name):
                if value < least:
                    raise ValueError("%s must be at least %d, got %d" % (name, least, value))
