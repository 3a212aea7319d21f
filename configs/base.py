# SPDX-License-Identifier: Apache-2.0
"""Every key of a run, with its meaning; the other files hold differences from this one.

`--config configs/NAME.py[:variant]` chooses a file, `--config.key=value` overrides a key. The types
are in bcmb_jax/config.py, which also marks the keys that may change when a run resumes.
"""

from ml_collections import ConfigDict

SIZES = {
    "base": dict(
        hidden_size=768, num_hidden_layers=22, num_attention_heads=12, intermediate_size=1152
    ),
    "large": dict(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, intermediate_size=2624
    ),
}


def get_config(size: str = "base") -> ConfigDict:
    """Return all keys for `:base` (149,655,232 parameters) or `:large` (395,881,664)."""
    if size not in SIZES:
        raise ValueError(f"there is no size {size!r}: choose from {', '.join(SIZES)}")
    config = ConfigDict()

    config.seed = 17  # of the data order, masking, dropout and initialisation
    config.tokenizer = ""  # a folder or hub:OWNER/NAME; empty: the one kept beside the shards
    # Matrix products: "bf16", "tf32" (GPUs) or "fp32" (full precision); empty: what the run was
    # begun in, else fp32 on a CPU and bf16 elsewhere.
    config.precision = ""
    # A run or checkpoint of ours, a Hugging Face folder, a Composer .pt, hub:OWNER/NAME (fetched),
    # or, with --online, a name such as modernbert-base:stable; empty: from scratch.
    config.init_from = ""

    # How long: a step is train_rows_per_step * data.row_length tokens, the run ends with the first
    # step that reaches max_tokens (non-padding tokens).
    config.max_tokens = 1_000_000_000
    config.train_rows_per_step = 576  # over all devices
    config.rows_per_microbatch = 0  # at most so many rows at once on a device; 0: all of its rows
    config.remat = False  # compute layers again in the backward pass: a third of the memory, a
    #                       third more time
    # How attention is computed (bcmb_jax/attention): "xla", "interval", "fa4" or "dew"; empty: the
    # best for the device.
    config.attention = ""

    # StableAdamW; betas 0.9 and 0.98, epsilon 1e-6.
    config.learning_rate = 3e-4
    config.weight_decay = 1e-5  # relative to the run's highest learning rate; matrices only
    config.mask_rate = 0.30  # of the tokens, predicted in training (evaluation: always 0.15)

    # An update with a number that is not finite is never made. This refuses spikes too: updates
    # whose gradient norm lies so many standard deviations above its running mean (both of the
    # logarithm); 0: none.
    config.spike_deviations = 0.0

    config.schedule = ConfigDict()
    config.schedule.name = "constant_with_warmup"  # or "one_minus_sqrt", "warmup_stable_decay"
    config.schedule.warmup_tokens = 0  # of constant_with_warmup and warmup_stable_decay
    config.schedule.decay_tokens = 0  # the last so many of max_tokens: the other two

    config.data = ConfigDict()
    config.data.train = ()  # folders of bcmb prepare; D is read as D/train
    config.data.validation = ()  # likewise D/validation; empty: those of data.train that have one
    config.data.weights = ()  # times an epoch goes through each source; empty: once
    config.data.skip_rows = ""  # rows to leave out, by the numbers that a refused update is told
    #                             with, such as "40-47,96-103"
    config.data.row_length = 8192  # tokens in a packed row; longer rows pack long documents better
    config.data.max_document_length = 8192  # longer documents are cut, [CLS] and [SEP] included

    config.eval_every = 500  # steps; 0: only at the end
    config.eval_tokens = 1_000_000  # of each source, always the same documents and masks
    config.save_every = 500  # steps, or 0; the end and a stop signal save too
    config.keep_checkpoints = 3  # the newest
    config.log_every = 10  # steps
    # A step that takes longer ends the process as hung, exit status 70; 0: ten times the slowest
    # step before it, at least 45 seconds.
    config.hang_seconds = 0.0

    config.mesh = ConfigDict()
    config.mesh.data = -1  # devices with a copy of the model each; -1: all that the others leave
    config.mesh.fsdp = 1  # devices over which parameters and optimizer state are split
    config.mesh.tensor = 1  # devices over which heads and MLP are split

    # Hugging Face's names. With init_from the sizes are those of the weights, unless they are given
    # on the command line.
    config.model = ConfigDict(SIZES[size])
    config.model.vocab_size = 50368
    config.model.local_attention = 128  # 64 keys to each side
    config.model.global_attn_every_n_layers = 3
    config.model.global_rope_theta = 160_000.0
    config.model.local_rope_theta = 10_000.0
    config.model.norm_eps = 1e-5
    config.model.hidden_activation = "gelu"  # of the MLP; some published models have "silu"
    config.model.max_position_embeddings = 8192
    config.model.attention_output_dropout = 0.1  # training only, after attention's projection
    return config
