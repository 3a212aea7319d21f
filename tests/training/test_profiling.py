# SPDX-License-Identifier: Apache-2.0
"""The table of where a step's time goes."""

import jax
import jax.numpy as jnp

from bcmb_jax.training import profiling
from bcmb_jax.training.profiling import Event, Profiled, record, table

PROGRAM = """
ENTRY main {
  %while.1 = f32[8]{0} while(%x), metadata={op_name="jit(step)/mlp/while" stack_frame_id=1}
  %fusion.2 = f32[8]{0} fusion(%y), metadata={op_name="jit(step)/transpose(jvp(mlp))/mul"}
  ROOT %dot.3 = f32[8]{0} dot(%y), metadata={op_name="jit(step)/rematted_computation/norm/dot"}
}
"""


def cells(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}


def test_an_operation_inside_another_counts_once_and_passes_are_told_apart():
    events = [
        Event("thread 1", "while.1", 0, 10e6),
        Event("thread 1", "fusion.2", 2e6, 5e6),
        Event("thread 2", "dot.3", 0, 6e6),
        Event("thread 2", "copy.4", 6e6, 10e6),
    ]
    of = cells(table(events, [PROGRAM]))
    assert of["mlp"] == ["7.0", "ms", "0.0", "ms", "3.0", "ms", "50.0%"]
    assert of["norm"] == ["0.0", "ms", "6.0", "ms", "0.0", "ms", "30.0%"]
    assert of["other"] == ["4.0", "ms", "0.0", "ms", "0.0", "ms", "20.0%"]
    assert of["all"][:2] == ["20.0", "ms,"]


@jax.jit
def square(x):
    with jax.named_scope("mlp"):
        return x @ x


def test_a_trace_of_a_real_program_names_its_parts(tmp_path):
    x = jnp.ones((512, 512))
    program = square.lower(x).compile()
    text = record(tmp_path, lambda: jax.block_until_ready(program(x)), [program.as_text()])
    assert float(cells(text)["mlp"][-1].rstrip("%")) > 50
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))  # for TensorBoard


def test_a_profiled_function_gives_what_it_gave_and_traces_one_call(tmp_path, capsys):
    profiled = Profiled(square, tmp_path, traced=4)
    for call in range(1, 7):
        assert float(profiled(jnp.full((4, 4), 2.0))[0, 0]) == 16
        assert bool(list(tmp_path.glob("**/*.xplane.pb"))) == (call >= 4)
    assert capsys.readouterr().out.count("tensorboard --logdir") == 1


class Program:
    """Says when it is called, and when what it gave is waited for."""

    def __init__(self):
        self.happened = []

    def lower(self):
        return self

    def compile(self, options):
        return self

    def __call__(self):
        self.happened.append("called")
        return self

    def block_until_ready(self):
        self.happened.append("ended")

    def as_text(self):
        return PROGRAM


def test_no_call_runs_into_the_trace_of_a_later_one(tmp_path, monkeypatch):
    """Nor where, as in encoding, none takes what the one before gave."""
    program = Program()

    def recorded(_, run, __):
        program.happened.append("trace")
        run()
        return ""

    monkeypatch.setattr(profiling, "record", recorded)
    profiled = Profiled(program, tmp_path, traced=3)
    for _ in range(4):
        profiled()
    before = ["called", "ended"] * 2
    assert program.happened == [*before, "trace", "called", "ended", "called"]
