# SPDX-License-Identifier: Apache-2.0
"""OpenVINO gives our outputs of the ONNX exports."""

import openvino
from comparison import Comparison
from transformers import AutoTokenizer

MODELS = ("notes-modernbert", "my-encoder", "my-tagger", "my-classifier")


def main() -> None:
    """Compare each head, in one padded batch, and run the page's example."""
    compare = Comparison("openvino", "transformers", "numpy")
    core = openvino.Core()
    for model in MODELS:
        wanted = compare.arrays[model]
        for kind, file in (("onnx", "model.onnx"), ("int8", "model_int8.onnx")):
            folder = f"{model}-{kind}"
            tokenizer = AutoTokenizer.from_pretrained(folder)
            batch = tokenizer(compare.ours["texts"], padding=True, return_tensors="np")
            # Some processors would compute in bfloat16 unasked.
            options = {"INFERENCE_PRECISION_HINT": "f32"}
            program = core.compile_model(f"{folder}/{file}", "CPU", options)
            found = program(dict(batch))[0]
            used = slice(None) if model == "my-classifier" else batch["attention_mask"] == 1
            found, ours = found[used], wanted.reshape(found.shape)[used]
            export = f"{folder} (--to onnx{' --dtype int8' * (kind == 'int8')})"
            (compare.close if kind == "onnx" else compare.similar)(export, "outputs", found, ours)
    example = compare.snippet("OpenVINO")
    shape = example["logits"].shape[::2]
    compare.equal("my-tagger-onnx", "the page's example runs", shape, (2, 7))
    compare.finish()


if __name__ == "__main__":
    main()
