# SPDX-License-Identifier: Apache-2.0
"""The encoder. Modules and parameters carry the names of the PyTorch checkpoint.

One parameter per checkpoint tensor, same bytes, viewed with more axes where that lets `tensor`
sharding split heads or the MLP without collectives (`Wqkv`, `Wo`, `Wi`).
"""

import contextlib
import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.xla_metadata import set_xla_metadata

from bcmb_jax.attention import OUTPUT, QKV, attention
from bcmb_jax.device import on_cpu
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.ops.dropout import dropout
from bcmb_jax.ops.geglu import geglu
from bcmb_jax.ops.linear import linear
from bcmb_jax.ops.norm import LayerNorm
from bcmb_jax.ops.rope import attention_operands, rope_table

INIT_STD = 0.02

ATTENDED, MLP_INPUT, PRODUCT_INPUT = "attended", "mlp_input", "product_input"
SAVED_ACTIVATIONS = (QKV, OUTPUT, ATTENDED, MLP_INPUT)
"""What the backward pass keeps of a layer beside its input: what only a matrix product or attention
could bring back. Norms, GELU and dropout are computed again."""
SAVED_ACTIVATIONS_ON_ACCELERATORS = (*SAVED_ACTIVATIONS, PRODUCT_INPUT)
"""There, also what products take from norms and GELU: a third more bytes kept, and neither is
computed again but inside the kernels of their gradients."""


def truncated_normal(rngs: nnx.Rngs, shape: tuple[int, ...], std: float) -> nnx.Param:
    """Cut at two `std`, not rescaled, as upstream does (RECIPE §2): the real std is 0.88 `std`."""
    return nnx.Param(std * jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape))


class Linear(nnx.Module):
    """`weight` `[*outputs, *inputs]` fp32, no bias; operands and output in `dtype`, sums fp32."""

    def __init__(self, outputs: tuple, inputs: tuple, std: float, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.weight = truncated_normal(rngs, (*outputs, *inputs), std)
        self.axes, self.dtype = len(inputs), dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        return linear(x, self.weight[...], self.dtype, self.axes, out_dtype=self.dtype)


class TokenTable(nnx.Module):
    """The token embeddings, also the (tied) decoder's weight."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.weight = truncated_normal(rngs, (config.vocab_size, config.hidden_size), INIT_STD)


class Embeddings(nnx.Module):
    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.tok_embeddings = TokenTable(config, rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)

    @jax.named_scope("embeddings")
    def __call__(self, tokens: jax.Array) -> jax.Array:
        # Fidelity: upstream's padding_idx is 0 (bert-base-uncased's), so its token 0 gets no
        # gradient through this lookup; here every token does, and padding is never looked at.
        return self.norm(jnp.take(self.tok_embeddings.weight[...], tokens, axis=0, mode="clip"))


class Attention(nnx.Module):
    """Self-attention of one layer; `window` None for a global layer."""

    def __init__(
        self, config: ModelConfig, window: int | None, dtype: jnp.dtype, implementation, rngs
    ):
        heads = (config.num_attention_heads, config.head_size)
        hidden = (config.hidden_size,)
        self.Wqkv = Linear((3, *heads), hidden, INIT_STD, dtype, rngs)
        self.Wo = Linear(hidden, heads, output_std(config), dtype, rngs)
        self.window, self.dtype, self.implementation = window, dtype, implementation

    def __call__(self, x: jax.Array, segment_ids: jax.Array, rope: tuple) -> jax.Array:
        with jax.named_scope("qkv"):
            qkv = self.Wqkv(x)
        q, k, v = attention_operands(qkv, rope, self.dtype)
        with jax.named_scope("global_attention" if self.window is None else "local_attention"):
            out = attention(
                q,
                k,
                v,
                segment_ids=segment_ids,
                window=self.window,
                scale=1.0,
                implementation=self.implementation,
            )
        with jax.named_scope("attention_output"):
            return self.Wo(out)


class MLP(nnx.Module):
    """GeGLU: `Wo(gelu(a) · b)` where `Wi` gives `(a, b)` in this order."""

    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        hidden, inner = (config.hidden_size,), (config.intermediate_size,)
        self.Wi = Linear((2, *inner), hidden, INIT_STD, dtype, rngs)
        self.Wo = Linear(hidden, inner, output_std(config), dtype, rngs)
        self.dtype = dtype

    @jax.named_scope("mlp")
    def __call__(self, x: jax.Array) -> jax.Array:
        inner = checkpoint_name(self.Wi(x), MLP_INPUT)
        return self.Wo(checkpoint_name(geglu(inner, self.dtype), PRODUCT_INPUT))


def output_std(config: ModelConfig) -> float:
    """Residual projections start smaller by the square root of their number (Megatron's rule)."""
    return INIT_STD / math.sqrt(2 * config.num_hidden_layers)


class Layer(nnx.Module):
    """Pre-norm block; the first layer has no `attn_norm`, since the embeddings end in a norm."""

    def __init__(self, config: ModelConfig, index: int, dtype: jnp.dtype, implementation, rngs):
        kind = config.layer_types[index]
        self.attn_norm = LayerNorm(config.hidden_size, config.norm_eps) if index else None
        self.attn = Attention(
            config, None if kind == "global" else config.window, dtype, implementation, rngs
        )
        self.mlp_norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config, dtype, rngs)
        self.dropout_rate, self.dtype = config.attention_output_dropout, dtype

    def __call__(self, x, segment_ids, rope, dropout_keys) -> jax.Array:
        normed = x
        if self.attn_norm:
            x, normed = self.attn_norm.branch(x, self.dtype)
            normed = checkpoint_name(normed, PRODUCT_INPUT)
        attended = self.attn(normed, segment_ids, rope)
        if dropout_keys is not None and self.dropout_rate:
            attended = dropout(attended.astype(x.dtype), dropout_keys, self.dropout_rate)
        x, normed = self.mlp_norm.branch(checkpoint_name(x + attended, ATTENDED), self.dtype)
        return x + self.mlp(checkpoint_name(normed, PRODUCT_INPUT))


@functools.partial(jax.jit, static_argnums=(0, 2))
def _run_layer(graph, state, kept, *args) -> jax.Array:
    """A layer that keeps what `kept` names for the backward pass; layers alike are traced once."""

    def run(state, *args):
        return nnx.merge(graph, state)(*args)

    with _apart(False):
        policy = jax.checkpoint_policies.save_only_these_names(*kept)
        return jax.checkpoint(run, policy=policy)(state, *args)


def _apart(on: bool = True):
    """Calls of jitted functions stay calls, on a CPU.

    Inlined there, a layer's recomputation in the backward pass would be found to equal its forward
    pass and be replaced by it, which keeps all that it was to save, and the residual stream would
    be summed anew from the outputs of all layers wherever it is read.
    """
    if not on_cpu():
        return contextlib.nullcontext()
    return set_xla_metadata(inlineable="false" if on else "true")


class ModernBert(nnx.Module):
    """The encoder: tokens to hidden states.

    Args:
      config: sizes.
      dtype: bfloat16 or float32, for matrix products and attention operands; parameters, residual
        stream, norms and softmax are float32.
      implementation: of `bcmb_jax.attention.attention`; None chooses.
      remat: keep only the input and the attention output of each layer for the backward pass, and
        compute its matrix products again: less memory, about a third more arithmetic.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dtype: jnp.dtype = jnp.float32,
        implementation: str | None = None,
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        self.config, self.remat = config, remat
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.List(
            Layer(config, i, dtype, implementation, rngs) for i in range(config.num_hidden_layers)
        )
        self.final_norm = LayerNorm(config.hidden_size, config.norm_eps)

    def __call__(
        self,
        tokens: jax.Array,
        segment_ids: jax.Array,
        positions: jax.Array,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, L, hidden]` fp32 from `[B, L]` int32 arrays (see `bcmb_jax.batch.Batch`).

        `dropout_keys` `[B]`, one key a row, turns training dropout on.
        """
        config = self.config
        thetas = {"global": config.global_rope_theta, "local": config.local_rope_theta}
        ropes = {kind: rope_table(positions, t, config.head_size) for kind, t in thetas.items()}
        x = self.embeddings(tokens)
        kept: tuple[str, ...] = (OUTPUT,)
        if not self.remat:
            kept = SAVED_ACTIVATIONS if on_cpu() else SAVED_ACTIVATIONS_ON_ACCELERATORS
        for index, (kind, layer) in enumerate(zip(config.layer_types, self.layers, strict=True)):
            keys = None
            if dropout_keys is not None:
                keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(dropout_keys, index)
            with _apart():
                x = _run_layer(*nnx.split(layer), kept, x, segment_ids, ropes[kind], keys)
        return self.final_norm(x)
