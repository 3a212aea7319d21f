# SPDX-License-Identifier: Apache-2.0
"""The count of what a program moves, for a program small enough to count by hand."""

from bcmb_jax.model.config import ModelConfig
from tests.fixtures.traffic import traffic_of

CONFIG = ModelConfig(vocab_size=100, hidden_size=8, num_hidden_layers=2, num_attention_heads=2)
PROGRAM = """
HloModule step

%cast (p0: f32[100,8]) -> bf16[100,8] {
  %p0 = f32[100,8] parameter(0)
  ROOT %c = bf16[100,8] convert(%p0)
}

%row (p0.1: f32[3,90], p1: s32[]) -> f32[1,90] {
  %p0.1 = f32[3,90] parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %part = f32[1,90] dynamic-slice(%p0.1, %p1, %zero), dynamic_slice_sizes={1,90}
}

%write (p0.2: bf16[20,100], p1.2: bf16[2,100], p2: s32[]) -> bf16[20,100] {
  %p0.2 = bf16[20,100] parameter(0)
  %p1.2 = bf16[2,100] parameter(1)
  %p2 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  ROOT %new = bf16[20,100] dynamic-update-slice(%p0.2, %p1.2, %p2, %zero.2)
}

%product (p0.3: bf16[2,8], p1.3: bf16[100,8]) -> bf16[2,100] {
  %p0.3 = bf16[2,8] parameter(0)
  %p1.3 = bf16[100,8] parameter(1)
  ROOT %d = bf16[2,100] dot(%p0.3, %p1.3), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}

%body (state: (s32[], bf16[20,100], f32[100,8])) -> (s32[], bf16[20,100], f32[100,8]) {
  %state = (s32[], bf16[20,100], f32[100,8]) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %all = bf16[20,100] get-tuple-element(%state), index=1
  %table = f32[100,8] get-tuple-element(%state), index=2
  %rounded = bf16[100,8] fusion(%table), kind=kLoop, calls=%cast
  %hidden = bf16[2,8] constant({...})
  %logits = bf16[2,100] fusion(%hidden, %rounded), kind=kCustom, calls=%product
  %same = bf16[2,100] bitcast(%logits)
  %loss = (f32[2], bf16[2,100]) custom-call(%logits, /*index=1*/%same), custom_call_target="x"
  %dlogits = bf16[2,100] get-tuple-element(%loss), index=1
  %kept = bf16[20,100] fusion(%all, %dlogits, %i), kind=kLoop, calls=%write
  ROOT %next = (s32[], bf16[20,100], f32[100,8]) tuple(%i, %kept, %table)
}

ENTRY %main (a: (s32[], bf16[20,100], f32[100,8]), b: f32[3,90], c: s32[]) -> f32[1,90] {
  %a = (s32[], bf16[20,100], f32[100,8]) parameter(0)
  %b = f32[3,90] parameter(1)
  %c = s32[] parameter(2)
  %loop = (s32[], bf16[20,100]{1,0}) while(%a), body=%body, config={"known_trip_count":{"n":"10"}}
  %copied = f32[3,90] copy(%b), metadata={op_name="jit(step)/optimizer/add"}
  %first = f32[1,90] fusion(%copied, %c), kind=kLoop, calls=%row
  ROOT %last = f32[1,90] negate(%first)
}
"""


def test_parts_turns_views_and_products_are_counted_as_they_run():
    found = traffic_of(PROGRAM, CONFIG)
    turn = 100 * 8 * (4 + 2) + (400 + 400 + 8) + (400 + 400 + 4)  # a view is no second array
    assert found.bytes_between_products == 10 * turn + 2 * 1080 + (360 + 4 + 360) + 2 * 360
    assert found.launches_a_layer == 2 // 2
    assert found.table_casts == 10
    assert found.logits_touched == 2 + 2  # the kernel's, and what the update reads and writes
