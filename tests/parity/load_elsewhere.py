# SPDX-License-Identifier: Apache-2.0
"""Run with another transformers on PYTHONPATH: what models and tokenizers in its folders give.

python load_elsewhere.py FOLDER     reads FOLDER/inputs.npz, writes FOLDER/outputs.npz
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel

CLASSES = {
    "masked_lm": transformers.AutoModelForMaskedLM,
    "encoder": transformers.AutoModel,
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "token_classification": transformers.AutoModelForTokenClassification,
}


def main(folder: Path) -> None:
    inputs = np.load(folder / "inputs.npz")
    ids, mask = (torch.from_numpy(inputs[key].astype(np.int64)) for key in ("tokens", "mask"))
    outputs = {"version": np.array(transformers.__version__)}
    for kind, auto in CLASSES.items():
        model = auto.from_pretrained(folder / kind).eval()
        with torch.no_grad():
            outputs[kind] = model(ids, attention_mask=mask)[0].numpy()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "masked_lm")
    outputs["ids"] = np.array(tokenizer(str(inputs["text"]))["input_ids"])
    tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(
        add_prefix_space=True
    )  # the card's advice
    split = str(inputs["text"]).split()
    outputs["words"] = np.array(tokenizer(split, is_split_into_words=True)["input_ids"])
    np.savez(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
