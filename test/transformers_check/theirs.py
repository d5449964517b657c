"""Their half of `make check-transformers`; runs where transformers and torch are installed.

  theirs.py FOLDER    loads the models in FOLDER/ours/ and holds their logits and token ids against those
                      written there, then writes random models of transformers' own, with a batch and its
                      logits, to FOLDER/theirs/
"""
import os
import sys

import numpy as np
import torch
import transformers

TOLERANCE = 1e-5
TEXTS = (("手机没信号怎么办", "手机搜不到网络怎么处理？"), ("今天天气不错", ""),
         ("BERT与ALBERT，2019年", "Café 100%"))
VOCAB_SIZE = 40
SIZES = dict(vocab_size=VOCAB_SIZE, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
             intermediate_size=48, max_position_embeddings=32, hidden_act="gelu_new", layer_norm_eps=1e-12)
ALBERT = dict(SIZES, embedding_size=8, num_hidden_groups=2, inner_group_num=2)
MODELS = {
    "albert_pretraining": ("AlbertForPreTraining", "AlbertConfig", ALBERT),
    "albert_two_labels": ("AlbertForSequenceClassification", "AlbertConfig", ALBERT),
    "albert_named_labels": ("AlbertForSequenceClassification", "AlbertConfig",
                            dict(ALBERT, hidden_act="relu", id2label={0: "好", 1: "中", 2: "差"},
                                 label2id={"好": 0, "中": 1, "差": 2})),
    "bert_pretraining": ("BertForPreTraining", "BertConfig", SIZES),
    "bert_two_labels": ("BertForSequenceClassification", "BertConfig", dict(SIZES, hidden_act="silu")),
}


def logits_of(model, batch):
    """As arrays: `logits`, or `prediction_logits` at the batch's positions and `order_logits`."""
    model.eval()
    with torch.no_grad():
        found = model(*(torch.tensor(batch[name]).long()
                        for name in ("input_ids", "input_mask", "segment_ids")))
    if "logits" in found:
        return {"logits": found.logits.numpy()}
    order = found.sop_logits if "sop_logits" in found else found.seq_relationship_logits
    rows = np.arange(len(batch["positions"]))[:, np.newaxis]
    return {"prediction_logits": found.prediction_logits.numpy()[rows, batch["positions"]],
            "order_logits": order.numpy()}


def check(folder):
    worst = 0.0
    for name in sorted(os.listdir(folder)):
        place = os.path.join(folder, name, "transformers")
        batch = dict(np.load(os.path.join(folder, name, "batch.npz")))
        model_class = getattr(transformers, transformers.AutoConfig.from_pretrained(place).architectures[0])
        model, loading = model_class.from_pretrained(place, output_loading_info=True)
        if any(loading.values()):
            sys.exit("%s: %s" % (name, loading))
        tokens = transformers.AutoTokenizer.from_pretrained(place, use_fast=False)
        for row, (text_a, text_b) in enumerate(TEXTS):
            ids = tokens(text_a, text_b or None, padding="max_length", max_length=batch["input_ids"].shape[1])
            wanted = (batch["input_ids"][row].tolist(), batch["segment_ids"][row].tolist())
            if (ids["input_ids"], ids["token_type_ids"]) != wanted:
                sys.exit("%s: other token ids: %s, %s" % (name, text_a, ids))
        for head, values in logits_of(model, batch).items():
            difference = np.abs(values - batch[head]).max()
            worst = max(worst, difference)
            print("to_transformers    %-28s %-18s largest logit %6.3f  largest difference %.1e"
                  % (name, head, np.abs(values).max(), difference), flush=True)
    return worst


def write(folder):
    rng = np.random.RandomState(2)
    lengths = np.array([[16], [11], [5]])
    columns = np.arange(16)[np.newaxis]
    mask = (columns < lengths).astype(np.int32)
    batch = {"input_ids": rng.randint(5, VOCAB_SIZE, mask.shape).astype(np.int32) * mask, "input_mask": mask,
             "segment_ids": ((columns >= lengths // 2) * mask).astype(np.int32),
             "positions": np.array([[1, 15], [0, 9], [3, 4]])}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + [chr(0x4e00 + index)
                                                              for index in range(VOCAB_SIZE - 5)]
    torch.manual_seed(3)
    for name, (model_class, config_class, fields) in MODELS.items():
        place = os.path.join(folder, name, "transformers")
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**fields))
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value) * 0.1)
        model.save_pretrained(place, safe_serialization=True)
        with open(os.path.join(place, "vocab.txt"), "w", encoding="utf-8") as stream:
            stream.write("\n".join(words) + "\n")
        transformers.BertTokenizer(os.path.join(place, "vocab.txt")).save_pretrained(place)
        np.savez(os.path.join(folder, name, "batch.npz"), **batch, **logits_of(model, batch))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    difference = check(os.path.join(sys.argv[1], "ours"))
    write(os.path.join(sys.argv[1], "theirs"))
    if not difference <= TOLERANCE:
        sys.exit("a difference is above %g" % TOLERANCE)
