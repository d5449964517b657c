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
SAVED = {"float16": {"dtype": torch.float16}, "bfloat16": {"dtype": torch.bfloat16},
         "shards": {"size": "20KB"}}           # by the end of a model's name
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
    "albert_regression": ("AlbertForSequenceClassification", "AlbertConfig", dict(ALBERT, num_labels=1)),
    "albert_encoder": ("AlbertModel", "AlbertConfig", ALBERT),
    "bert_encoder": ("BertModel", "BertConfig", SIZES),
    "albert_masked_lm": ("AlbertForMaskedLM", "AlbertConfig", ALBERT),
    "bert_masked_lm": ("BertForMaskedLM", "BertConfig", SIZES),
    "bert_float16": ("BertForPreTraining", "BertConfig", SIZES),
    "albert_bfloat16": ("AlbertForSequenceClassification", "AlbertConfig", ALBERT),
    "bert_shards": ("BertForPreTraining", "BertConfig", SIZES),
}


def logits_of(model, batch):
    """As arrays: `logits`, or `prediction_logits` at the batch's positions and `order_logits`, those of them
    that there are; of an encoder alone `sequence_output`, 0 at padding."""
    model.eval()
    with torch.no_grad():
        found = model(*(torch.tensor(batch[name]).long()
                        for name in ("input_ids", "input_mask", "segment_ids")))
    rows = np.arange(len(batch["positions"]))[:, np.newaxis]
    if "last_hidden_state" in found:
        return {"sequence_output": found.last_hidden_state.numpy() * batch["input_mask"][:, :, np.newaxis]}
    if "logits" in found and found.logits.ndim == 3:
        return {"prediction_logits": found.logits.numpy()[rows, batch["positions"]]}
    if "logits" in found:
        return {"logits": found.logits.numpy()}
    order = found.sop_logits if "sop_logits" in found else found.seq_relationship_logits
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
        how = SAVED.get(name.split("_")[1], {})
        model.to(how.get("dtype", torch.float32))
        model.save_pretrained(place, max_shard_size=how.get("size", "1GB"))
        model.float()
        vocab_file = os.path.join(folder, name, "vocab.txt")
        with open(vocab_file, "w", encoding="utf-8") as stream:
            stream.write("\n".join(words) + "\n")
        transformers.BertTokenizer(vocab_file).save_pretrained(place)     # as vocab.txt, or tokenizer.json
        np.savez(os.path.join(folder, name, "batch.npz"), **batch, **logits_of(model, batch))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    difference = check(os.path.join(sys.argv[1], "ours"))
    write(os.path.join(sys.argv[1], "theirs"))
    if not difference <= TOLERANCE:
        sys.exit("a difference is above %g" % TOLERANCE)
