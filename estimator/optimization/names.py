"""Names of the update rules and learning rate schedules; without TensorFlow, since --help lists them."""
ADAMW, LAMB = "adamw", "lamb"
OPTIMIZERS = (ADAMW, LAMB)

LINEAR_AFTER_WARMUP, REFERENCE = "linear_after_warmup", "reference"
LR_SCHEDULES = (LINEAR_AFTER_WARMUP, REFERENCE)
