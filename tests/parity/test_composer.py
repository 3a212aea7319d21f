# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the original training code: nothing lost either way, and training goes on."""

import copy
import dataclasses
import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import conversion
from bcmb_jax.attention.mask import segment_positions
from bcmb_jax.batch import Batch
from bcmb_jax.errors import InputError, NumericsError
from bcmb_jax.masking import MaskingRule, mask_tokens
from bcmb_jax.model.heads import Head
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.training.checkpoint import RunProgress, TrainState
from bcmb_jax.training.kept import Checkpoints
from bcmb_jax.training.step import train_step
from configs import tiny
from conversion import torch_files
from conversion.config_json import config_json
from conversion.convert import convert
from conversion.export import write_huggingface
from conversion.flexbert import flexbert_name
from conversion.weights import read
from tests.fixtures.tiny_weights import IDS, TINY, random_weights, same_bits
from tests.fixtures.torch_models import our_graph, random_rows, torch, transformers
from tests.parity.test_forward import LOGIT_TOLERANCE
from tests.parity.test_training import LOSS_TOLERANCE, torch_loss, torch_step

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def sample(request) -> Path:
    """A checkpoint that composer 0.24.1 wrote."""
    return request.getfixturevalue("shared") / "data" / "composer_checkpoint" / "latest-rank0.pt"


@pytest.fixture
def tree(sample):
    """Return the content of a checkpoint."""
    return torch_files.load(sample)


def differences(a, b, path: str = "") -> list[str]:
    """Where two trees of Python values, arrays and tensors differ."""
    if isinstance(a, dict):
        keys = [f"{path}/{key}" for key in a.keys() ^ b.keys()]
        inside = [differences(a[k], b[k], f"{path}/{k}") for k in a.keys() & b.keys()]
        return [*keys, *itertools.chain(*inside)]
    if isinstance(a, list | tuple):
        pairs = zip(a, b, strict=True)
        return [d for i, (x, y) in enumerate(pairs) for d in differences(x, y, f"{path}/{i}")]
    if torch.is_tensor(a):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [path]
    return [] if np.array_equal(a, b) else [path]


def test_there_and_back_is_the_same_file(sample, tree, tmp_path) -> None:
    convert(str(sample), "orbax", tmp_path / "orbax")
    found = convert(str(tmp_path / "orbax"), "composer", tmp_path / "back")
    # 29 weights, two moments of each, step and max_lr.
    assert found.tensors.tensors == 89
    assert found.logits.difference <= LOGIT_TOLERANCE
    back = torch_files.load(tmp_path / "back" / "latest-rank0.pt")
    asked = {"source": "latest-rank0.pt", "license": "not stated", "tokens": None}
    assert back["state"].pop("data_agreements") == [asked]  # all that is ours
    assert differences(tree, back) == []
    model = back["state"]["model"]
    assert list(model) == list(tree["state"]["model"])
    tied = (model["model.decoder.weight"], model["model.bert.embeddings.tok_embeddings.weight"])
    assert tied[0].data_ptr() == tied[1].data_ptr()
    back["state"]["optimizers"]["StableAdamW"]["param_groups"][1]["max_lr"] *= 1.001
    assert differences(tree, back) == ["/state/optimizers/StableAdamW/param_groups/1/max_lr"]


def test_exports_are_that_model(sample, tree, tmp_path) -> None:
    found = convert(str(sample), "huggingface", tmp_path / "out")
    assert found.logits.difference <= LOGIT_TOLERANCE
    # By transformers' names, written out by hand (RECIPE §1).
    stored = tree["state"]["model"]
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out").eval()
    theirs = {
        name.removeprefix("model.").replace("bert.encoder.layers", "model.layers"): x
        for name, x in stored.items()
    }
    theirs = {name.replace("bert.", "model."): x for name, x in theirs.items()}
    assert differences(dict(model.state_dict()), theirs) == []
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.mask_token_id == 484
    assert tokenizer.cls_token_id == model.config.cls_token_id


@pytest.mark.parametrize("keep_step", [True, False])
def test_training_goes_on_as_in_torch(sample, tree, keep_step) -> None:
    """Five steps from the checkpoint with its moments, against torch's autograd and the optimizer
    written out after RECIPE §3 (`test_training.torch_step`), dropout off, fp32."""
    weights = read(sample)
    initial = conversion.load_initial(sample)
    opt_state = initial.opt_state
    if not keep_step:
        opt_state = opt_state._replace(step=np.int32(0))
    rate, decay, seed = 6e-4, 1e-2, 3
    rule = MaskingRule(0.3, 484, (480, 481, 482, 483, 484), np.arange(480))
    optimizer = stable_adamw(weight_decay=decay, max_lr=1.0, decay_mask=weight_decay_mask)
    graph = our_graph(weights.config)
    step = jax.jit(
        functools.partial(train_step, graph=graph, optimizer=optimizer, rule=rule, seed=seed)
    )
    key = jax.random.split(jax.random.key(seed))[0]  # as train_step derives it

    values = transformers.ModernBertConfig(**config_json(weights.config, weights.token_ids))
    model = transformers.ModernBertForMaskedLM(values).eval()
    names = {flexbert_name(name): name for name, _ in model.named_parameters()}
    stored = tree["state"]["model"]
    model.load_state_dict({ours: stored[theirs] for theirs, ours in names.items()}, strict=False)
    adam = tree["state"]["optimizers"]["StableAdamW"]
    moments = {names[name]: (x["exp_avg"], x["exp_avg_sq"]) for name, x in adam["state"].items()}
    seen, max_lr = int(adam["param_groups"][0]["step"]), adam["param_groups"][0]["max_lr"]

    params = {name: jnp.asarray(x) for name, x in initial.params.items()}
    state = TrainState(params, jax.tree.map(jnp.asarray, opt_state))
    losses = []
    for number in range(5):
        tokens, segment_ids = random_rows(
            [60, 30], [96], length=100, config=weights.config, seed=number
        )
        positions = np.asarray(segment_positions(jnp.asarray(segment_ids)))
        flat = Batch(tokens, segment_ids, positions, np.arange(2, dtype=np.int32) + 2 * number)
        masked = jax.tree.map(np.asarray, mask_tokens(flat, rule, key))
        state, metrics = step(state, Batch(*(x[None] for x in flat)), rate)
        loss = torch_loss(model, masked)
        loss.backward()
        torch_step(model, moments, seen + number + 1, rate, max_lr, decay)
        losses.append((float(metrics.loss), loss.item()))
    worst = max(abs(ours - theirs) for ours, theirs in losses)
    print("losses", losses)
    assert worst <= LOSS_TOLERANCE if keep_step else worst > 100 * LOSS_TOLERANCE


def save(tree, directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    torch.save(tree, directory / "other.pt")
    return directory / "other.pt"


def test_other_layouts_are_read_alike(sample, tree, tmp_path) -> None:
    """DistributedDataParallel's prefix, and optimizers that number their tensors."""
    before = read(sample)
    state = tree["state"]
    other = copy.deepcopy(tree)
    other["state"]["model"] = {f"module.{name}": x for name, x in state["model"].items()}
    adam = other["state"]["optimizers"]["StableAdamW"]
    order = [name for group in adam["param_groups"] for name in group["params"]]
    adam["state"] = {number: adam["state"][name] for number, name in enumerate(order)}
    first = len(adam["param_groups"][0]["params"])
    adam["param_groups"][0]["params"] = list(range(first))
    adam["param_groups"][1]["params"] = list(range(first, len(order)))
    file = save(other, tmp_path / "numbered")
    again = read(file.parent)  # a folder with one .pt
    assert again.config == before.config
    assert same_bits(again.params, before.params)
    for moment in ("exp_avg", "exp_avg_sq"):
        ours, theirs = (getattr(w.opt_state, moment) for w in (again, before))
        assert same_bits(ours, theirs)
    convert(str(file), "orbax", tmp_path / "orbax")
    convert(str(tmp_path / "orbax"), "composer", tmp_path / "back")
    back = torch_files.load(tmp_path / "back" / "latest-rank0.pt")
    assert differences(adam, back["state"]["optimizers"]["StableAdamW"]) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("model.", "model._orig_mod."),
        ("model.", "_orig_mod.module.model."),
        ("model.bert.encoder.layers.1.", "model.bert.encoder.layers.1._orig_mod."),
        ("model.bert.", "model.bert._fsdp_wrapped_module."),
        ("layers.2.", "layers.2._checkpoint_wrapped_module."),
    ],
)
def test_what_wrapped_the_model_is_taken_off(sample, tree, tmp_path, old, new) -> None:
    model = tree["state"]["model"]
    tree["state"]["model"] = {name.replace(old, new, 1): x for name, x in model.items()}
    again, before = read(save(tree, tmp_path / "wrapped")), read(sample)
    assert again.config == before.config
    assert same_bits(again.params, before.params)


def test_a_tied_table_may_be_the_decoder_alone(sample, tree, tmp_path) -> None:
    tree["state"]["model"].pop("model.bert.embeddings.tok_embeddings.weight")
    assert same_bits(read(save(tree, tmp_path / "tied")).params, read(sample).params)


def test_silu_goes_to_composer_and_back(tmp_path) -> None:
    config = dataclasses.replace(TINY, hidden_activation="silu")
    write_huggingface(random_weights(config), empty(tmp_path / "hf"))
    convert(str(tmp_path / "hf"), "composer", tmp_path / "out")
    tree = torch_files.load(tmp_path / "out" / "latest-rank0.pt")
    parts = tree["state"]["integrations"]["huggingface"]["model"]["config"]["content"]
    assert (parts["hidden_act"], parts["head_pred_act"]) == ("silu", "gelu")
    assert read(tmp_path / "out").config.hidden_activation == "silu"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_pooling_of_a_later_classifier_does_not_hinder_composer(pooling, tmp_path) -> None:
    weights = random_weights(head=Head("masked_lm", pooling=pooling))
    write_huggingface(weights, empty(tmp_path / "hf"))
    convert(str(tmp_path / "hf"), "composer", tmp_path / "out")
    assert same_bits(read(tmp_path / "out").params, weights.params)


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_where_sizes_come_from(sample, tree, tmp_path, caplog) -> None:
    """The file's own config, else --model-config, else the tensors, with a warning."""
    given = sample.parent / "model_config.json"
    config = read(sample).config
    assert config.local_attention == 16
    assert read(sample, model_config=given).config == config
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(json.loads(given.read_text()) | {"sliding_window": 32}))
    with pytest.raises(InputError, match="local_attention=32"):
        read(sample, model_config=wrong)
    del tree["state"]["integrations"]
    bare = save(tree, tmp_path / "bare")
    yaml = tmp_path / "run.yaml"
    yaml.write_text(json.dumps({"model": {"model_config": json.loads(given.read_text())}}))
    assert read(bare, model_config=given).config == read(bare, model_config=yaml).config == config
    guessed = read(bare).config
    assert guessed.num_hidden_layers == 4
    assert guessed.intermediate_size == 96
    assert "sizes are taken from its tensors, 1 heads, window 128" in caplog.text


@pytest.mark.parametrize("where", ["exp_avg", "exp_avg_sq", "max_lr"])
def test_moments_that_are_not_finite_are_refused(tree, tmp_path, where) -> None:
    adam = tree["state"]["optimizers"]["StableAdamW"]
    if where == "max_lr":
        adam["param_groups"][0]["max_lr"] = adam["param_groups"][1]["max_lr"] = float("inf")
    else:
        moment = adam["state"]["model.bert.final_norm.weight"][where]
        adam["state"]["model.bert.final_norm.weight"][where] = moment.clone().index_fill_(
            0, torch.tensor([3]), float("nan")
        )
    told = "max_lr" if where == "max_lr" else f"^{where} of .* in 1 of 29 tensors: model.final_norm"
    with pytest.raises(NumericsError, match=told):
        convert(str(save(tree, tmp_path / "bad")), "orbax", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_the_optimizer_holds_is_not_lost_silently(tree, tmp_path) -> None:
    adam = tree["state"]["optimizers"]["StableAdamW"]["state"]
    part = adam["model.bert.final_norm.weight"]
    for change, message in (
        ({"eps_sq": torch.tensor(4e-12)}, "eps_sq of model.final_norm.weight"),
        ({"kahan_comp": torch.zeros(64)}, "kahan_comp of model.final_norm.weight"),
        ({"extra": 1}, "extra of model.final_norm.weight"),
        ({"exp_avg_sq": -part["exp_avg_sq"]}, "negative elements"),
    ):
        before = dict(part)
        part.update(change)
        with pytest.raises(InputError, match=message):
            read(save(tree, tmp_path / "other"))
        part.clear()
        part.update(before)
    # Nothing here cares for these, and still they come back.
    tree["state"]["callbacks"]["Rec"] = {"best": float("nan"), 3: (1, torch.ones(2).bfloat16())}
    vocabulary = tree["state"]["integrations"]["huggingface"]["tokenizer"]["tokenizer.json"]
    vocabulary["content"]["model"]["vocab"]["__x"] = 511
    file = save(tree, tmp_path / "other")
    convert(str(file), "orbax", tmp_path / "orbax")
    convert(str(tmp_path / "orbax"), "composer", tmp_path / "back")
    back = torch_files.load(tmp_path / "back" / "latest-rank0.pt")
    back["state"].pop("data_agreements")
    assert differences(tree, back) == ["/state/callbacks/Rec/best"]  # NaN is not equal to itself
    assert np.isnan(back["state"]["callbacks"]["Rec"]["best"])


def test_runs_of_ours_go_to_composer(tmp_path) -> None:
    weights = random_weights()
    moments = stable_adamw(max_lr=0.5).init(weights.params)
    moments = jax.tree.map(lambda x: x + 1, moments)._replace(step=np.int32(12))
    config = tiny.get_config()
    config.model = TINY.as_dict()
    facts = {"config": config.to_dict(), "tokenizer": {"special": IDS}, "data": {}}
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 1)
    progress = RunProgress(step=12, tokens_seen=34_567, row_id=96)
    checkpoints.save(TrainState(weights.params, moments), progress, facts)
    checkpoints.close()
    convert(str(tmp_path / "run"), "composer", tmp_path / "out")
    state = torch_files.load(tmp_path / "out" / "latest-rank0.pt")["state"]
    clock = state["timestamp"]["Timestamp"]
    assert (clock["batch"], clock["token"], clock["sample"]) == (12, 34_567, 96)
    vectors, matrices = state["optimizers"]["StableAdamW"]["param_groups"]
    assert int(vectors["step"]) == 12
    assert vectors["max_lr"] == 1.5
    assert vectors["weight_decay"] == 0
    assert matrices["weight_decay"] == config.weight_decay
    assert state["schedulers"]["LambdaLR"]["base_lrs"] == [config.learning_rate] * 2
    assert matrices["params"][1] == "model.bert.encoder.layers.0.attn.Wqkv.weight"
    again = conversion.load_initial(tmp_path / "out")
    assert same_bits(again.params, weights.params)
    assert again.opt_state.step == 12
    # Weights alone, for Composer's load_weights_only.
    convert(str(tmp_path / "run"), "huggingface", tmp_path / "hf")
    convert(str(tmp_path / "hf"), "composer", tmp_path / "light")
    assert conversion.load_initial(tmp_path / "light").opt_state is None


def test_optimizers_that_do_not_exist_here_do_not_start(tree, tmp_path) -> None:
    groups = tree["state"]["optimizers"]["StableAdamW"]["param_groups"]
    groups[0]["beta2"] = groups[1]["beta2"] = 0.999
    file = save(tree, tmp_path / "other")
    with pytest.raises(InputError, match=r"beta2 0\.999; here it is 0\.98; convert it --to hugg"):
        conversion.load_initial(file)
    convert(str(file), "orbax", tmp_path / "orbax")
    with pytest.raises(InputError, match="beta2"):
        conversion.load_initial(tmp_path / "orbax")
    groups[0]["step"] = groups[0]["step"] + 1
    with pytest.raises(InputError, match=r"steps \[8, 9\]"):
        read(save(tree, tmp_path / "torn"))
