"""A CLIP tokenizer with a small vocabulary, from the captions' words and some that people type."""
import json
import re
from collections import Counter

import numpy as np
from transformers import CLIPTokenizer

import data
from common import TOKENS

# Words that the captions lack. They have tokens, and stand among the captions' words as noise, so that they do no harm.
EXTRA = ("the and with in of at my nice beautiful simple clean modern style cute vector flat sharp logo sign symbol "
         "shape object color colour high quality detailed background picture minimal digital art rendering poster card "
         "sticker emoji button please show me make draw some very two three this that is there cat dog car house tree "
         "flower sun moon sky sea man woman face glass wooden metal soft light dark grey gray pink brown cyan gold "
         "silver").split()


def byte_characters():
    """The printable stand-ins of the 256 bytes that GPT-2 and CLIP use."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + n) for n, b in enumerate(others)}}


def merges(counts, number):
    """Byte-pair merges by frequency; ties go to the pair that sorts last."""
    characters = byte_characters()
    words = Counter()
    for word, n in counts.items():
        symbols = [characters[b] for b in word.encode()]
        words[(*symbols[:-1], symbols[-1] + "</w>")] += n
    found = []
    while len(found) < number:
        pairs = Counter()
        for symbols, n in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        if not pairs:
            break
        best = max(pairs, key=lambda p: (pairs[p], p))
        found.append(best)
        words = Counter({merged(symbols, best): n for symbols, n in words.items()})
    return found


def merged(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if symbols[i:i + 2] == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return tuple(out)


def make(run):
    rng = np.random.default_rng(5)
    counts = Counter()
    for attributes in data.sample_attrs(6000, rng):
        counts.update(re.findall(r"[a-z]+|[^\sa-z]", data.caption(attributes, rng)[0]))
    for word in EXTRA:
        counts[word] += 20
    pairs = merges(counts, 480)
    bytes_ = list(byte_characters().values())
    tokens = [*bytes_, *(t + "</w>" for t in bytes_), *(a + b for a, b in pairs), "<|startoftext|>", "<|endoftext|>"]
    folder = run.path("tokenizer")
    folder.mkdir(exist_ok=True)
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
               "pad_token": "<|endoftext|>"}
    settings = dict(special, add_prefix_space=False, do_lower_case=True, errors="replace", model_max_length=TOKENS,
                    tokenizer_class="CLIPTokenizer")
    write = lambda name, text: (folder / name).write_text(text, encoding="utf-8")
    write("vocab.json", json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False))
    write("merges.txt", "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))
    write("special_tokens_map.json", json.dumps(special, indent=1))
    write("tokenizer_config.json", json.dumps(settings, indent=1))
    run.say(f"tokenizer: {len(tokens)} tokens")


def load(run):
    return CLIPTokenizer.from_pretrained(run.path("tokenizer"))


def encode(tokenizer, captions):
    return tokenizer(captions, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids
