"""The kinds of heads that fine-tuning trains, by the names in tasks and in model.json; without TensorFlow."""
CLASSES, SPANS, CHOICES, TAGS, MULTI_LABEL = KINDS = ("classes", "spans", "choices", "tags", "multi_label")
