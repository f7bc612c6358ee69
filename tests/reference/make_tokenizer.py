"""Write a CLIP tokenizer folder (vocab.json, merges.txt, tokenizer_config.json, special_tokens_map.json,
tokenizer.json) from CLIP's merge list.

The list is the project's own copy, crates/edge-run/tests/data/clip_merges.txt.gz: the 48,894 merges that CLIP
uses, one a line. `--bpe` takes the public bpe_simple_vocab_16e6.txt.gz in its place (the PyPI package
open_clip_torch carries it), of which CLIP uses the lines after the header up to 49152-256-2 merges;
`--save-merges` writes the copy from it. The vocabulary is, in this order: 256 byte symbols, the same 256 with
`</w>`, one entry per merge, then the two special tokens.

`--merges N` keeps only the first N merges: a smaller, equally valid tokenizer for tiny models.

    python tests/reference/make_tokenizer.py --out FOLDER
"""

import argparse
import gzip
import json
from pathlib import Path

OWN_MERGES = Path(__file__).resolve().parents[2] / "crates/edge-run/tests/data/clip_merges.txt.gz"
FULL_MERGES = 49152 - 256 - 2
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def byte_symbols():
    """GPT-2's byte -> printable code point table, in CLIP's vocabulary order."""
    keep = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    moved = [b for b in range(256) if b not in keep]
    return [chr(b) for b in keep] + [chr(256 + i) for i in range(len(moved))]


def load_merges(bpe_path=None, count=FULL_MERGES):
    """The first `count` merges of the public list at `bpe_path`, or else of the project's copy."""
    lines = gzip.open(bpe_path or OWN_MERGES).read().decode("utf-8").split("\n")
    header = 1 if bpe_path else 0
    return lines[header : header + count]


def save_merges(merges, path):
    # No name and no date in the header: the same merges are the same bytes.
    data = ("\n".join(merges) + "\n").encode("utf-8")
    Path(path).write_bytes(gzip.compress(data, compresslevel=9, mtime=0))


def build_vocab(merges):
    symbols = byte_symbols()
    tokens = symbols + [s + "</w>" for s in symbols] + ["".join(m.split()) for m in merges] + [BOS, EOS]
    vocab = {t: i for i, t in enumerate(tokens)}
    assert len(vocab) == len(tokens), "duplicate vocabulary entry"
    return vocab


def special(text):
    return {"content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_tokenizer(out_dir, merges=FULL_MERGES, pad_token=EOS, bpe_path=None):
    """Write the folder and return the tokenizer; without `bpe_path` from the project's merge list."""
    from transformers import CLIPTokenizer

    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    rules = load_merges(bpe_path, merges)
    vocab = build_vocab(rules)
    (out / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (out / "merges.txt").write_text("#version: 0.2\n" + "\n".join(rules) + "\n", encoding="utf-8")
    config = {
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken", **special(BOS)},
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken", **special(EOS)},
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": pad_token,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken", **special(EOS)},
    }
    write_json(out / "tokenizer_config.json", config)
    names = {"bos_token": special(BOS), "eos_token": special(EOS), "pad_token": pad_token, "unk_token": special(EOS)}
    write_json(out / "special_tokens_map.json", names)
    pairs = [tuple(m.split()) for m in rules]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=pairs, pad_token=pad_token, model_max_length=77)
    tokenizer.backend_tokenizer.save(str(out / "tokenizer.json"))
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out")
    parser.add_argument("--bpe")
    parser.add_argument("--save-merges")
    parser.add_argument("--merges", type=int, default=FULL_MERGES)
    args = parser.parse_args()
    if args.save_merges:
        save_merges(load_merges(args.bpe), args.save_merges)
    if args.out:
        tokenizer = write_tokenizer(args.out, args.merges, bpe_path=args.bpe)
        print(len(tokenizer), tokenizer("a photo of a cat")["input_ids"])


if __name__ == "__main__":
    main()
