"""Runs llama.cpp's converter with a pre-tokenizer that we name.

The converter tells pre-tokenizers apart by a hash over the ids of a test text, so it knows released vocabularies
only: neither the tiny model's own nor one rebuilt out of a GGUF. The stage `convert` proves the name right by
comparing token ids afterwards. Run by it: `python run_converter.py SOURCE PRE_TOKENIZER [converter's arguments]`.
"""

import importlib
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Replace the converter's guess by the given name, then run it as the program it is."""
    source, pre_tokenizer, *arguments = sys.argv[1:]
    converter = Path(source, "convert_hf_to_gguf.py")
    sys.path[:0] = [source, str(converter.parent / "gguf-py")]
    text_model = importlib.import_module("conversion.base").TextModel
    text_model.get_vocab_base_pre = lambda self, tokenizer: pre_tokenizer
    text_model._set_vocab_sentencepiece = _no_sentencepiece
    sys.argv = [str(converter), *arguments]
    runpy.run_path(str(converter), run_name="__main__")


def _no_sentencepiece(self: object, add_to_gguf: bool = True) -> None:
    """Our vocabularies are byte-pair; the original looks for a sentencepiece model with a package of that name
    before it says so."""
    raise FileNotFoundError("tokenizer.model")


if __name__ == "__main__":
    main()
