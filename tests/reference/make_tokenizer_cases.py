"""Write tokenizer_cases.json.gz: prompts, and the ids that transformers' CLIP tokenizer gives them (padded to 77
with the end token, truncated).

The ids are stored without the padding tail: a row is ids + [eos] * (77 - len(ids)). A third are plain prompts, the
rest is markup, long text, ASCII noise, Unicode noise, and the corner cases listed below.

    python tests/reference/make_tokenizer.py --out FOLDER
    python tests/reference/make_tokenizer_cases.py --tokenizer FOLDER --out crates/edge-run/tests/data/tokenizer_cases.json.gz
"""

import argparse
import gzip
import html
import json
import random
from pathlib import Path

import tokenizers
import transformers
from transformers import CLIPTokenizer

SUBJECT = "cat;dog;red bicycle;old lighthouse;astronaut;bowl of ramen;medieval castle;robot;girl with a pearl earring;steam train;Eiffel Tower;polar bear;city skyline;wizard;jellyfish;mountain lake;sports car;koi pond;violinist;snow leopard;cup of coffee;grandmother;neon sign;paper crane".split(";")
STYLE = "oil painting;watercolour;35mm photo;pencil sketch;studio Ghibli style;low-poly 3D render;ukiyo-e woodblock;cinematic lighting;8k, ultra-detailed;by Van Gogh;trending on ArtStation;bokeh, f/1.8;isometric;pixel art;vaporwave;macro photograph;charcoal;anime key visual;double exposure;HDR".split(";")
PLACE = "in the rain;on the moon;under water;at sunset;in Tokyo;in a forest;on a wooden table;inside a snow globe;at 3 a.m.;beside the Seine;in zero gravity;on Mars".split(";")
FIXED = [
    "", " ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u2028", "\x00", "\x01\x02", "a\x00b", "a\x07b", "\x1b[31mred\x1b[0m", "a\u0085b", "\x7f",
    "a photo of a cat", "A PHOTO OF A CAT", "a  photo   of\ta\ncat", " a photo of a cat ", "cat", "Cat.", "cat!!!", "cat?!...", "...", "!!!", "!", "?", "---", "a-b-c", "a_b_c", "__init__",
    "it's", "IT'S", "It's a dog's life", "don't", "DON'T", "we're", "they've", "I'm", "you'll", "he'd", "y'all'd've", "rock 'n' roll", "'s", "'S", "''s", "'tis", "o\u2019clock", "it\u2019s", "l\u2018\u00e9t\u00e9", "' s", "'re're", "'m'm", "'ve", "'VE", "'ll'LL", "\u017fhe's", "it'\u017f",
    "1", "12", "123", "1234567890", "3.14159", "1,000,000", "2026-11-23", "50%", "$9.99", "\u20ac20", "\u00a35", "\u00bd cup", "x\u00b2", "H\u2082O", "\u2164", "\u0663\u0664", "\u4e09\u5341", "1st 2nd 3rd", "a1b2c3", "v1.5", "f/1.8", "4K", "1e-5", "#ff0000", "@user", "C++", "C#", ".NET",
    "<|startoftext|>", "<|endoftext|>", "a <|endoftext|> b", "<|startoftext|>cat<|endoftext|>", "<|STARTOFTEXT|>", "<|endoftext|", "<| endoftext |>", "x<|endoftext|>y", "<start_of_text>", "<end_of_text>", "[PAD]", "<s>", "</w>", "cat</w>", "<|pad|>",
    "&amp;", "&lt;b&gt;", "&quot;hi&quot;", "&amp;amp;", "&#39;", "&nbsp;", "a &amp; b", "<b>bold</b>", "&eacute;", "&hearts;", "&notanentity;", "AT&T", "R&amp;D", "&#x1F600;",
    "caf\u00e9", "cafe\u0301", "CAF\u00c9", "na\u00efve", "\u00dcber", "u\u0308ber", "stra\u00dfe", "STRASSE", "\u1e9e", "\u0130stanbul", "\u0131s\u0131k", "\u03a3\u03a3", "\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3", "\u01c5", "\ufb01re", "\uff21\uff22\uff23", "\u2460", "\u212b", "\u2126", "\u1f88", "\u0345", "e\u0301\u0301", "Z\u0351\u036b\u0343a\u0306\u0307l\u030b\u030cg\u0308o\u0301",
    "\u65e5\u672c\u8a9e", "\u732b\u306e\u5199\u771f", "\u30cd\u30b3", "\uff88\uff7a", "\u304b\u3099", "\u304c", "\u4e2d\u56fd", "\u4e00\u53ea\u732b", "\ud55c\uad6d\uc5b4", "\u1112\u1161\u11ab", "\uace0\uc591\uc774 \uc0ac\uc9c4", "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0e44\u0e17\u0e22", "\u041f\u0440\u0438\u0432\u0435\u0442", "\u0393\u03b5\u03b9\u03ac", "\u10d2\u10d0\u10db", "\u1c90\u1c91", "\u13a0\uab70", "\U00010400\U00010428",
    "\U0001f600", "\U0001f600\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f1eb\U0001f1f7", "\U0001f431 cat", "cat\U0001f431dog", "\u2603", "\u2122 \u00a9 \u00ae", "1\ufe0f\u20e3", "\U0001f9d1\u200d\U0001f680", "\U0001fae0",
    "\u201cquoted\u201d", "\u00abguillemets\u00bb", "em\u2014dash", "en\u2013dash", "ellipsis\u2026", "a\u00adb", "zero\u200bwidth", "a\u200db", "\u202eabc", "\ufffd", "\ue000", "\U000f0000", "\u0378",
    "\u00c3\u00a9", "\u00e2\u20ac\u2122", "\u00f0\u0178\u02dc\u20ac", "schÃ¶n", "l\u00e2\u20ac\u2122humanit\u00e9",  # mojibake that ftfy would repair
    "a" * 76, "a" * 500, "supercalifragilisticexpialidocious", "antidisestablishmentarianism", "aaaa bbbb " * 40, "cat " * 74, "cat " * 75, "cat " * 76, "cat " * 77, "cat " * 200, "!" * 200, "\U0001f600" * 60, "\u732b" * 60, "1" * 75, "1" * 76,
    "https://example.com/a?b=c&d=e", "C:\\Users\\x", "/usr/bin/env", "(masterpiece:1.2), [blurry]", "a cat (red) [blue] {green}", "<lora:name:0.8>", "cat, dog | bird", "~tilde~ `tick` ^caret^", "a*b=c", "50/50", "\\n", "\"\"\"", ";;;", ":)", ":-D", "<3", "->", "=>", "100\u00b0C", "\u00b5m", "\u2192", "\u221a2\u2260\u03c0",
    "\u0149", "\u01f0", "\u0390", "\ufb00", "\u1e96", "\u00b7", "\u0387", "\u212a", "\u1fef", "\u0340", "\uf900", "\uf9d0", "\U0002f800", "\u0958", "\u09dc", "\u0f43", "\u2adc", "\U0001d15e",  # NFC compositions, exclusions and singletons
    "\u0085", "a\u1680b", "a\u2003b", "a\u205fb", "a\u180eb", "a\x0bb", "a\x0cb", "a\x1cb", "a\x1fb", "\u2029x", "\u202fx",
]
RANGES = [(0x20, 0x7E), (0xA0, 0x17F), (0x180, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF),
          (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x20A0, 0x20CF), (0x2100, 0x214F),
          (0x2190, 0x21FF), (0x2460, 0x24FF), (0x2600, 0x27BF), (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xAD00), (0xF900, 0xFAFF), (0xFB00, 0xFB4F),
          (0xFE70, 0xFEFF), (0xFF00, 0xFFEF), (0x10400, 0x1044F), (0x1D400, 0x1D4FF), (0x1F300, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF), (0x20000, 0x200FF)]


def soup(rng, n):
    """`n` characters from all over Unicode, with a space or a mark between some."""
    out = []
    for _ in range(n):
        lo, hi = rng.choice(RANGES)
        out.append(chr(rng.randint(lo, hi)))
        if rng.random() < 0.2:
            out.append(rng.choice([" ", " ", "  ", "\n", "'s", "-", "."]))
    return "".join(out)


def prompt(rng):
    kind = rng.random()
    p = f"{rng.choice(['a', 'an', 'the', 'A', 'two', '3'])} {rng.choice(SUBJECT)} {rng.choice(PLACE)}, "
    p += ", ".join(rng.sample(STYLE, rng.randint(0, 5)))
    if kind < 0.35:
        return p
    if kind < 0.45:
        variants = [p.upper(), p.title(), p.replace(" ", "  "), p.replace(",", " ,"), p.replace(" ", "\n", 2)]
        return rng.choice([*variants, p + "." * rng.randint(1, 9)])
    if kind < 0.55:
        return html.escape(p + rng.choice([' & "friends"', " <tag>", " it's"]))
    if kind < 0.65:
        return " ".join(rng.choice(SUBJECT + STYLE + PLACE) for _ in range(rng.randint(15, 60)))
    if kind < 0.75:
        return "".join(chr(rng.randint(33, 126)) for _ in range(rng.randint(1, 60)))
    if kind < 0.92:
        return soup(rng, rng.randint(1, 25))
    odd = ["\U0001f431", "\u00e9t\u00e9", "\u732b", "n't", "'ve", "#1", "100%", "\x02", "\u200b", "\u2019s"]
    return p[: rng.randint(1, len(p))] + rng.choice(odd) + p[: rng.randint(0, 20)]


def prompts(count):
    rng = random.Random(20261123)
    found = dict.fromkeys(FIXED)
    while len(found) < count:
        found[prompt(rng)] = None
    return list(found)


def trim(row, eos):
    n = len(row)
    while n > 1 and row[n - 1] == eos and row[n - 2] == eos:
        n -= 1
    return row[:n]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=3000)
    args = parser.parse_args()
    tokenizer = CLIPTokenizer.from_pretrained(args.tokenizer)
    texts = prompts(args.count)
    rows = tokenizer(texts, padding="max_length", max_length=77, truncation=True)["input_ids"]
    assert all(len(row) == 77 for row in rows)
    assert rows[texts.index("a photo of a cat")][:7] == [49406, 320, 1125, 539, 320, 2368, 49407]
    eos = tokenizer.eos_token_id
    made_with = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "class": type(tokenizer).__name__}
    head = {
        "note": "ids + [eos] * (77 - len(ids)) is the padded row",
        "max_length": 77,
        "bos": tokenizer.bos_token_id,
        "eos": eos,
        "pad": tokenizer.pad_token_id,
        "made_with": made_with,
    }
    cases = [json.dumps({"text": text, "ids": trim(row, eos)}) for text, row in zip(texts, rows)]
    text = json.dumps(head)[:-1] + ', "cases": [\n' + ",\n".join(cases) + "\n]}\n"
    # No name and no date in the header: the same cases are the same bytes.
    Path(args.out).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))
    print(len(cases), "cases;", sum(len(trim(row, eos)) == 77 for row in rows), "fill all 77")


if __name__ == "__main__":
    main()
