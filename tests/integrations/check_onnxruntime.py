# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime gives our outputs in float32, and those of int8 are near them."""

from pathlib import Path

import onnxruntime
from comparison import Comparison, run_example
from transformers import AutoTokenizer

MODELS = ("notes-modernbert", "my-encoder", "my-tagger", "my-classifier")


def main() -> None:
    """Compare each head, tokenized by transformers as its card says, in one padded batch."""
    compare = Comparison("onnxruntime", "transformers", "numpy")
    for model in MODELS:
        wanted = compare.arrays[model]
        for kind, file in (("onnx", "model.onnx"), ("int8", "model_int8.onnx")):
            folder = f"{model}-{kind}"
            tokenizer = AutoTokenizer.from_pretrained(folder)
            batch = tokenizer(compare.ours["texts"], padding=True, return_tensors="np")
            export = f"{folder} (--to onnx{' --dtype int8' * (kind == 'int8')})"
            ids = batch["input_ids"].ravel()
            compare.equal(export, "tokens", ids, compare.arrays[f"{model} ids"].ravel())
            session = onnxruntime.InferenceSession(f"{folder}/{file}")
            (found,) = session.run(None, dict(batch))
            real = batch["attention_mask"] == 1
            used = slice(None) if model == "my-classifier" else real
            found, ours = found[used], wanted.reshape(found.shape)[used]
            (compare.close if kind == "onnx" else compare.similar)(export, "outputs", found, ours)
            card = run_example(Path(folder, "README.md").read_text(encoding="utf-8"))
            name = session.get_outputs()[0].name
            compare.equal(export, "the card's example runs", [str(card[name].dtype)], ["float32"])
    example = compare.snippet("ONNX Runtime")
    shape = example["logits"].shape[::2]
    compare.equal("my-tagger-onnx", "the page's example runs", shape, (2, 7))
    compare.finish()


if __name__ == "__main__":
    main()
