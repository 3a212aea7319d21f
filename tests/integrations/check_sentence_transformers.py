# SPDX-License-Identifier: Apache-2.0
"""Vectors of sentence-transformers are ours."""

from pathlib import Path

from comparison import Comparison, run_example
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Compare both poolings, and run the example of the model's card."""
    compare = Comparison("sentence-transformers", "transformers", "torch", "numpy")
    for pooling in ("mean", "cls"):
        name = f"my-vectors-{pooling}"
        vectors = SentenceTransformer(name, device="cpu").encode(compare.ours["texts"])
        export = f"{name} (--to sentence-transformers --pooling {pooling})"
        compare.close(export, "encode", vectors, compare.arrays[pooling])
        card = run_example(Path(name, "README.md").read_text(encoding="utf-8"))
        compare.equal(export, "the card's example runs", card["vectors"].shape, (2, 64))
    compare.snippet("sentence-transformers")
    compare.finish()


if __name__ == "__main__":
    main()
