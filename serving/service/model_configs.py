"""Which models are served: each one's folder, versions and labels.

    --model_name, --model_base_path ──┐
    --model_config_file ──────────────┼──► a ModelConfig for each model
    HandleReloadConfigRequest ────────┘

The latter two are TensorFlow Serving's ModelServerConfig, as text and as a message.
"""
import re
import sys
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional

from tensorflow_serving.config import model_server_config_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from etl.common.command_line import UserError
from serving.service import text_messages
from serving.service.flags import MODEL_NAME, ServerConfig

PLATFORM = "tensorflow"


class VersionPolicy(NamedTuple):
    """Which versions serve: the newest `most` of `numbers`, or of all if that is None."""
    most: int = 1
    numbers: Optional[FrozenSet[int]] = None

    def candidates(self, present: Iterable[int]) -> List[int]:
        """Those of `present` that may serve, the newest first."""
        return sorted((number for number in present if self.numbers is None or number in self.numbers),
                      reverse=True)


class ModelConfig(NamedTuple):
    """One model. `origin` is the source of the config, for messages."""
    name: str
    base_path: str
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = {}
    origin: str = "--model_base_path"


def from_flags(config: ServerConfig) -> List[ModelConfig]:
    """The models given by the server's flags. Raises UserError for an unreadable file."""
    if not config.model_config_file:
        return [ModelConfig(config.model_name, config.model_base_path)]
    path = config.model_config_file
    found = ModelServerConfig()
    text_messages.read(path, found, "--model_config_file")
    return from_message(found, "--model_config_file: %s: " % path)


def from_message(config: Any, where: str = "") -> List[ModelConfig]:
    """The models of a ModelServerConfig. Raises UserError, beginning with `where`, for unsupported ones."""
    kind = config.WhichOneof("config")
    if kind != "model_config_list":
        raise UserError("%swanted a model_config_list, got %s" % (where, kind or "none"))
    found: Dict[str, ModelConfig] = {}
    for number, model in enumerate(config.model_config_list.config, 1):
        if not re.fullmatch(MODEL_NAME, model.name):
            raise UserError("%sconfig %d: name must be a name without / and :, got %r"
                            % (where, number, model.name))
        if model.name in found:
            raise UserError("%smodel %s is listed twice" % (where, model.name))
        found[model.name] = _model(model, "%smodel %s" % (where, model.name))
    return list(found.values())


def _model(model: Any, origin: str) -> ModelConfig:
    is_tensorflow = (model.model_platform == PLATFORM if not model.model_type else
                     not model.model_platform and model.model_type == model_server_config_pb2.TENSORFLOW)
    if not is_tensorflow:
        raise UserError('%s: model_platform must be "%s", got "%s"'
                        % (origin, PLATFORM, model.model_platform))
    if not model.base_path.startswith("/"):
        raise UserError("%s: base_path must be an absolute path on this machine, got %r"
                        % (origin, model.base_path))
    if model.HasField("logging_config"):
        raise UserError("%s: logging_config is not supported: requests are not recorded" % origin)
    return ModelConfig(model.name, model.base_path, _policy(model.model_version_policy, origin),
                       dict(model.version_labels), origin)


def _policy(policy: Any, origin: str) -> VersionPolicy:
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return VersionPolicy(sys.maxsize)
    if kind == "specific":
        numbers = frozenset(policy.specific.versions)
        if not numbers:
            raise UserError("%s: model_version_policy: specific names no versions" % origin)
        return VersionPolicy(len(numbers), numbers)
    return VersionPolicy(policy.latest.num_versions or 1)
