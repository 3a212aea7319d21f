# SPDX-License-Identifier: Apache-2.0
"""The encoder. Modules and parameters carry the names of the PyTorch checkpoint.

One parameter per checkpoint tensor, same bytes, viewed with more axes where that lets `tensor`
sharding split heads or the MLP without collectives (`Wqkv`, `Wo`, `Wi`).
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Key, UInt32

from bcmb_jax.attention import Seen, see, self_attention
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.ops import cpu
from bcmb_jax.ops.dropout import row_words
from bcmb_jax.ops.geglu import geglu
from bcmb_jax.ops.linear import linear
from bcmb_jax.ops.norm import branch, layer_norm, sums_are_kernels
from bcmb_jax.ops.remat import MLP_INPUT, PRODUCT_INPUT, checkpoint, saved_activations
from bcmb_jax.ops.rope import Table, rope_table

INIT_STD = 0.02
FP32 = jnp.dtype(jnp.float32)

Ids: TypeAlias = Int[Array | np.ndarray, "B L"]
"""One number for each token: its id, its segment or its position there."""
Stream: TypeAlias = Float[Array, "B L D"]
"""The residual stream, fp32."""


def truncated_normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param[Array]:
    """Return a parameter drawn from a normal distribution that is cut at two `std`.

    Not rescaled, as upstream (RECIPE §2): the real standard deviation is 0.88 `std`.
    """
    return nnx.Param(std * jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape))


class Linear(nnx.Module):
    """A product with `weight` fp32, without a bias.

    Args:
      equation: the einsum of an input and `weight`, e.g. `"bld,hkd->blhk"`.
      shape: of `weight`, `[*outputs, *inputs]`.
      std: standard deviation of the initial weight.
      dtype: of operands and output; sums are fp32.
    """

    def __init__(
        self, equation: str, shape: tuple[int, ...], std: float, dtype: jnp.dtype, rngs: nnx.Rngs
    ):
        self.weight = truncated_normal(rngs, shape, std)
        self.equation, self.dtype = equation, dtype

    def __call__(self, x: Float[Array, "B L *inputs"]) -> Float[Array, "B L *outputs"]:
        """Return the product with `x`, whatever the float dtype of `x`."""
        return linear(self.equation, x, self.weight[...], self.dtype, out_dtype=self.dtype)


class LayerNorm(nnx.Module):
    """Layer norm with a weight and no bias, in the dtype of its input, fp32."""

    def __init__(self, size: int, eps: float):
        self.weight = nnx.Param(jnp.ones(size))
        self.eps = eps

    @jax.named_scope("norm")
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Return the norm of `x`."""
        return layer_norm(x, self.weight[...], self.eps)

    @jax.named_scope("norm")
    def branch(
        self,
        x: Stream,
        update: Stream | None,
        dtype: jnp.dtype,
        words: UInt32[Array, "B 2"] | None = None,
        rate: float = 0.0,
    ) -> tuple[Stream, Stream]:
        """Return the residual stream, `x` and the `update` after dropout, and its norm."""
        x, normed = branch(x, update, self.weight[...], self.eps, dtype, words, rate)
        return x, checkpoint_name(normed, PRODUCT_INPUT)


class TokenTable(nnx.Module):
    """The token embeddings, also the (tied) decoder's weight."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.weight = truncated_normal(rngs, (config.vocab_size, config.hidden_size), INIT_STD)


class Embeddings(nnx.Module):
    """Token embeddings and their norm; there is no table of positions."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.tok_embeddings = TokenTable(config, rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)

    @jax.named_scope("embeddings")
    def __call__(self, tokens: Ids) -> Stream:
        """Return the normed embeddings of `tokens`, fp32."""
        # Fidelity: upstream's padding_idx is 0 (bert-base-uncased's), so its token 0 gets no
        # gradient through this lookup; here every token does, and padding is never looked at.
        return self.norm(jnp.take(self.tok_embeddings.weight[...], tokens, axis=0, mode="clip"))


class Attention(nnx.Module):
    """Self-attention of one layer; `window` None for a global layer."""

    def __init__(
        self,
        config: ModelConfig,
        window: int | None,
        dtype: jnp.dtype,
        implementation: str | None,
        rngs: nnx.Rngs,
    ):
        hidden, heads, size = config.hidden_size, config.num_attention_heads, config.head_size
        self.Wqkv = Linear("bld,shkd->blshk", (3, heads, size, hidden), INIT_STD, dtype, rngs)
        self.Wo = Linear("blhk,dhk->bld", (hidden, heads, size), output_std(config), dtype, rngs)
        self.window, self.implementation = window, implementation

    def __call__(self, x: Stream, seen: Seen, rope: Table) -> Stream:
        """Return the attention of each token of `x` to its segment, projected to the stream."""
        with jax.named_scope("qkv"):
            qkv = self.Wqkv(x)
        with jax.named_scope("global_attention" if self.window is None else "local_attention"):
            out = self_attention(qkv, rope, seen, self.window, self.implementation)
        with jax.named_scope("attention_output"):
            return self.Wo(out)


class MLP(nnx.Module):
    """GeGLU, or with SiLU: `Wo(gelu(a) · b)` where `Wi` gives `(a, b)` in this order."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        hidden, inner = config.hidden_size, config.intermediate_size
        self.Wi = Linear("bld,sfd->blsf", (2, inner, hidden), INIT_STD, dtype, rngs)
        self.Wo = Linear("blf,df->bld", (hidden, inner), output_std(config), dtype, rngs)
        self.activation, self.dtype = config.hidden_activation, dtype

    @jax.named_scope("mlp")
    def __call__(self, x: Stream) -> Stream:
        """Return the MLP's contribution to the residual stream."""
        inner = checkpoint_name(self.Wi(x), MLP_INPUT)
        return self.Wo(checkpoint_name(geglu(inner, self.dtype, self.activation), PRODUCT_INPUT))


def output_std(config: ModelConfig) -> float:
    """Return the initial std of residual projections by Megatron's rule: less in deeper models."""
    return INIT_STD / math.sqrt(2 * config.num_hidden_layers)


class Layer(nnx.Module):
    """Pre-norm block; the first layer has no `attn_norm`, since the embeddings end in a norm."""

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        dtype: jnp.dtype,
        implementation: str | None,
        rngs: nnx.Rngs,
    ):
        kind = config.layer_types[index]
        self.attn_norm = LayerNorm(config.hidden_size, config.norm_eps) if index else None
        self.attn = Attention(
            config, None if kind == "global" else config.window, dtype, implementation, rngs
        )
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config, dtype, rngs)
        self.dropout_rate, self.dtype = config.attention_output_dropout, dtype

    def __call__(
        self,
        x: Stream,
        update: Stream | None,
        seen: Seen,
        rope: Table,
        words: UInt32[Array, "B 2"] | None,
    ) -> tuple[Stream, Stream | None]:
        """Return the residual stream after attention and the MLP's update, not added yet.

        The next norm adds it, as the first one here adds the `update` of the layer before to `x`,
        fp32; where no kernel does both at once, None in place of an update that is added already.
        """
        if self.attn_norm:
            x, normed = self.attn_norm.branch(x, update, self.dtype)
        else:
            normed = checkpoint_name(x.astype(self.dtype), PRODUCT_INPUT)
        attended = self.attn(normed, seen, rope)
        x, normed = self.mlp_norm.branch(x, attended, self.dtype, words, self.dropout_rate)
        update = self.mlp(normed)
        return (x, update) if sums_are_kernels(self.dtype, x.shape[-1]) else (x + update, None)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run_layer(
    graph: nnx.GraphDef[Layer],
    state: nnx.State[Any, Any],
    saved: tuple[str, ...],
    *args: Array | Seen | Table | None,
) -> tuple[Array, Array | None]:
    """Run a layer that saves the activations named `saved`; layers alike are traced once."""
    return checkpoint(lambda state, *args: nnx.merge(graph, state)(*args), saved)(state, *args)


class ModernBert(nnx.Module):
    """The encoder: tokens to hidden states.

    Args:
      config: sizes.
      dtype: bfloat16 or float32, for matrix products and attention operands; parameters, residual
        stream, norms and softmax are float32.
      implementation: of `bcmb_jax.attention.attention`; None chooses.
      remat: save only the input and the attention output of each layer for the backward pass, and
        compute its matrix products again: less memory, about a third more arithmetic.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: jnp.dtype = FP32,
        implementation: str | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype, self.remat = config, dtype, remat
        self.implementation = implementation
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.List(
            Layer(config, i, dtype, implementation, rngs) for i in range(config.num_hidden_layers)
        )
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps)

    def __call__(
        self,
        tokens: Ids,
        segment_ids: Ids,
        positions: Ids,
        dropout_keys: Key[Array, " B"] | None = None,
    ) -> Stream:
        """Return the fp32 hidden states of packed rows (see `bcmb_jax.batch.Batch`).

        `dropout_keys`, one key a row, turn training dropout on.
        """
        for _, x in self.stages(tokens, segment_ids, positions, dropout_keys):
            last = x
        return last

    def stages(
        self,
        tokens: Ids,
        segment_ids: Ids,
        positions: Ids,
        dropout_keys: Key[Array, " B"] | None = None,
    ) -> Iterator[tuple[str, Stream]]:
        """Yield the residual stream after each module, with the module's name, as it is computed.

        The last one is what calling the model returns.
        """
        config = self.config
        thetas = {"global": config.global_rope_theta, "local": config.local_rope_theta}
        ropes = {kind: rope_table(positions, t, config.head_size) for kind, t in thetas.items()}
        chosen = self.dtype, config.head_size, self.implementation
        seen = {
            kind: see(segment_ids, window, *chosen)
            for kind, window in (("global", None), ("local", config.window))
        }
        x, update = self.embeddings(tokens), None
        yield "embeddings", x
        words: Sequence[Array | None] = [None] * len(self.layers)
        if dropout_keys is not None:
            words = [*row_words(dropout_keys, len(self.layers))]
        saved = saved_activations(self.remat)
        for index, (kind, layer) in enumerate(zip(config.layer_types, self.layers, strict=True)):
            with cpu.calls(inlined=False):
                x, update = _run_layer(
                    *nnx.split(layer), saved, x, update, seen[kind], ropes[kind], words[index]
                )
            whole = x if update is None else x + update
            yield f"layers.{index}", whole
            if self.remat:  # which saves what layers take
                x, update = whole, None
        yield "final_norm", self.final_norm(whole)
