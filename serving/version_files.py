"""Names of the files in an exported version's folder."""
import os

MODEL_FILE = "saved_model.pb"
EXTRA_FOLDER = "assets.extra"                  # TensorFlow Serving's name for what the graph itself does not read
VOCABULARY_FILE = os.path.join(EXTRA_FOLDER, "vocab.txt")
CARD_FILE = os.path.join(EXTRA_FOLDER, "model_card.json")
