"""The names that users of npu_bridge import."""
from npu_bridge import stand_in
from npu_bridge.estimator import npu_ops, npu_unary_ops
from npu_bridge.estimator.npu import util
from npu_bridge.estimator.npu.npu_config import DumpConfig, DynamicInputConfig, NPURunConfig, ProfilingConfig
from npu_bridge.estimator.npu.npu_estimator import NPUEstimator, NPUEstimatorSpec
from npu_bridge.estimator.npu.npu_hook import NPUCheckpointSaverHook, NPUOutputTensorHook
from npu_bridge.estimator.npu.npu_loss_scale_manager import (ExponentialUpdateLossScaleManager,
                                                             FixedLossScaleManager)
from npu_bridge.estimator.npu.npu_loss_scale_optimizer import NPULossScaleOptimizer
from npu_bridge.estimator.npu.npu_optimizer import NPUDistributedOptimizer, NPUOptimizer
from npu_bridge.hccl import hccl_ops
from npu_bridge.stand_in import rank_id as get_rank_id
from npu_bridge.stand_in import rank_size as get_rank_size

if stand_in.generation() == "M":
    from npu_bridge.estimator.npu import npu_plugin
    from npu_bridge.estimator.npu.npu_config import MemoryConfig
    from npu_bridge.estimator.npu.npu_hook import NPUBroadcastGlobalVariablesHook, SetIterationsVarHook
    from npu_bridge.estimator.npu.npu_optimizer import npu_distributed_optimizer_wrapper
    npu_plugin.replace_session()
