"""The baseline of etl_speed.py: a sample builder in the way of the older tools, plain Python in one process.

All documents are held in memory as lists of token strings; jieba segments every sentence again for each
duplicate, and its words are found again among the tokens, the longest first, up to three; tokens inside a
word are marked by ##; samples are tf.train.Examples, shuffled in memory and written by TensorFlow. Settings
are those of etl.build_pretrain.

  python test/benchmark/plain_builder.py corpus.txt vocab.txt samples.tfrecord 512 10
"""
import collections
import random
import re
import sys
import unicodedata

import jieba
import tensorflow.compat.v1 as tf

MASKED_LM_PROB, SHORT_SEQ_PROB = 0.15, 0.1
HAN = re.compile("[\u4e00-\u9fff]")


def main():
    input_file, vocab_file, output_file, max_seq_length, dupe_factor = sys.argv[1:]
    rng = random.Random(12345)
    vocab = collections.OrderedDict()
    with open(vocab_file, encoding="utf-8", newline="\n") as stream:
        for line in stream:
            vocab[line.rstrip("\n")] = len(vocab)
    documents = read_documents(input_file, vocab)
    rng.shuffle(documents)
    instances = []
    for _ in range(int(dupe_factor)):
        for document in documents:
            instances.extend(instances_from_document(document, int(max_seq_length), list(vocab), rng))
    rng.shuffle(instances)
    with tf.python_io.TFRecordWriter(output_file) as writer:
        for instance in instances:
            writer.write(serialize(instance, vocab, int(max_seq_length)))


def read_documents(path, vocab):
    documents = [[]]
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            line = line.strip()
            if not line:
                documents.append([])
                continue
            tokens = [piece for word in basic_tokens(line) for piece in word_pieces(word, vocab)]
            if tokens:
                documents[-1].append(tokens)
    return [document for document in documents if document]


def basic_tokens(text):
    spaced = []
    for char in text:
        if ord(char) in (0, 0xfffd) or unicodedata.category(char) in ("Cc", "Cf") and char not in "\t\n\r":
            continue
        spaced.append(" %s " % char if HAN.match(char) else " " if char.isspace() else char)
    words = []
    for word in "".join(spaced).split():
        current = ""
        for char in unicodedata.normalize("NFD", word.lower()):
            category = unicodedata.category(char)
            if category == "Mn":
                continue
            if category.startswith("P") or char in "$+<=>^`|~":
                words.extend([current, char] if current else [char])
                current = ""
            else:
                current += char
        if current:
            words.append(current)
    return words


def word_pieces(word, vocab):
    pieces, begin = [], 0
    while begin < len(word):
        end = len(word)
        while begin < end and ("##" if begin else "") + word[begin:end] not in vocab:
            end -= 1
        if begin == end or len(word) > 200:
            return ["[UNK]"]
        pieces.append(("##" if begin else "") + word[begin:end])
        begin = end
    return pieces


def mark_words(tokens):
    """Puts ## before the tokens that continue a word of jieba's."""
    words = set(jieba.lcut("".join(tokens)))
    marked, at = [], 0
    while at < len(tokens):
        length = 1
        if HAN.match(tokens[at]):
            for candidate in (3, 2):
                if "".join(tokens[at:at + candidate]) in words and at + candidate <= len(tokens):
                    length = candidate
                    break
        marked.append(tokens[at])
        marked.extend("##" + token for token in tokens[at + 1:at + length])
        at += length
    return marked


def instances_from_document(document, max_seq_length, vocab_words, rng):
    budget = max_seq_length - 3
    target = rng.randint(2, budget) if rng.random() < SHORT_SEQ_PROB else budget
    instances, chunk, length = [], [], 0
    for number, sentence in enumerate(document):
        sentence = mark_words(sentence)
        chunk.append(sentence)
        length += len(sentence)
        if number < len(document) - 1 and length < target:
            continue
        if len(chunk) >= 2:
            split = rng.randint(1, len(chunk) - 1)
            first = [token for part in chunk[:split] for token in part]
            second = [token for part in chunk[split:] for token in part]
            is_swapped = rng.random() < 0.5
            if is_swapped:
                first, second = second, first
            while len(first) + len(second) > budget:
                longer = first if len(first) > len(second) else second
                if rng.random() < 0.5:
                    del longer[0]
                else:
                    longer.pop()
            tokens = ["[CLS]"] + first + ["[SEP]"] + second + ["[SEP]"]
            segment_ids = [0] * (len(first) + 2) + [1] * (len(second) + 1)
            instances.append((mask(tokens, max_seq_length, vocab_words, rng), segment_ids, is_swapped))
        chunk, length = [], 0
    return instances


def mask(tokens, max_seq_length, vocab_words, rng):
    words = []
    for index, token in enumerate(tokens):
        if token in ("[CLS]", "[SEP]"):
            continue
        if words and token.startswith("##"):
            words[-1].append(index)
        else:
            words.append([index])
    tokens = [token[2:] if token.startswith("##") and HAN.match(token[2:]) else token for token in tokens]
    output = list(tokens)
    rng.shuffle(words)
    limit = min(most_predictions(max_seq_length), max(1, int(round(len(tokens) * MASKED_LM_PROB))))
    masked = []
    for word in words:
        if len(masked) >= limit:
            break
        if len(masked) + len(word) > limit:
            continue
        for index in word:
            if rng.random() < 0.8:
                output[index] = "[MASK]"
            elif rng.random() < 0.5:
                output[index] = vocab_words[rng.randint(0, len(vocab_words) - 1)]
            masked.append((index, tokens[index]))
    masked.sort()
    return output, masked


def most_predictions(max_seq_length):
    return int(round(MASKED_LM_PROB * max_seq_length))


def serialize(instance, vocab, max_seq_length):
    (tokens, masked), segment_ids, is_swapped = instance
    padding = [0] * (max_seq_length - len(tokens))
    slots = [0] * (most_predictions(max_seq_length) - len(masked))
    features = collections.OrderedDict()
    features["input_ids"] = int_feature([vocab[token] for token in tokens] + padding)
    features["input_mask"] = int_feature([1] * len(tokens) + padding)
    features["segment_ids"] = int_feature(segment_ids + padding)
    features["masked_lm_positions"] = int_feature([index for index, _ in masked] + slots)
    features["masked_lm_ids"] = int_feature([vocab[label] for _, label in masked] + slots)
    features["masked_lm_weights"] = tf.train.Feature(
        float_list=tf.train.FloatList(value=[1.0] * len(masked) + slots))
    features["next_sentence_labels"] = int_feature([int(is_swapped)])
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def int_feature(values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


if __name__ == "__main__":
    main()
