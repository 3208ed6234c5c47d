"""Threads that work on the rows of a step: what comes out is what one would make of them."""

import pytest
import torch
from lanes import Lanes
from packing import batches, plan
from test_trainer import adapted, random_examples, separate_sequences

CPU = torch.device("cpu")


def two_lanes(examples):
    """Lanes over a random model, its adapter, the same in transformers + peft, and the rows of one step."""
    decoder, adapter, reference = adapted("qwen3", torch.float32)
    [rows] = plan(examples, row_tokens=40, rows_per_step=99, total=len(examples), seed=0)
    return Lanes(adapter.attach(decoder, lanes=2), CPU), adapter, reference, rows


def test_two_lanes_give_the_loss_and_gradients_of_separate_sequences():
    examples = random_examples(14)
    lanes, adapter, reference, rows = two_lanes(examples)
    answers = sum(len(example.answer) for example in examples)

    loss = lanes.loss_and_gradients(examples, rows, 1 / answers, share=1.0).item() / answers
    expected_loss, expected = separate_sequences(reference, examples)

    assert loss == pytest.approx(expected_loss, abs=1e-5)
    torch.testing.assert_close(adapter.collect(), expected, rtol=0, atol=1e-5)
    steps = list(batches(examples, row_tokens=40, rows_per_step=2))
    assert lanes.loss(steps).item() / answers == pytest.approx(loss, abs=1e-5)


def test_a_step_with_fewer_rows_than_lanes_leaves_the_others_idle():
    examples = random_examples(1)
    lanes, adapter, reference, rows = two_lanes(examples)

    lanes.loss_and_gradients(examples, rows, 1 / len(examples[0].answer), share=1.0)

    torch.testing.assert_close(adapter.collect(), separate_sequences(reference, examples)[1], rtol=0, atol=1e-5)
    assert lanes.loss_and_gradients(examples, [], 1.0, share=1.0) == 0


def test_the_gradient_of_a_step_is_cleared_in_every_lane_and_of_the_same_bytes_each_time():
    examples = random_examples(14)
    lanes, adapter, _, rows = two_lanes(examples)
    made = []
    for _ in range(5):
        adapter.clear_gradients()
        lanes.loss_and_gradients(examples, rows, 1.0, share=1.0)
        made.append(adapter.collect().clone())

    assert all(torch.equal(made[0], each) for each in made)


def test_a_change_of_the_adapter_reaches_all_lanes():
    examples = random_examples(14)
    lanes, adapter, reference, rows = two_lanes(examples)
    before = lanes.loss_and_gradients(examples, rows, 1.0, share=1.0).item()
    with torch.no_grad():
        adapter.values.mul_(0.5)
        for parameter in reference.parameters():
            if parameter.requires_grad:
                parameter.mul_(0.5)
    adapter.refresh()
    answers = sum(len(example.answer) for example in examples)

    after = lanes.loss_and_gradients(examples, rows, 1.0, share=1.0).item()

    assert after != pytest.approx(before, rel=1e-3)
    assert after / answers == pytest.approx(separate_sequences(reference, examples)[0], abs=1e-5)


def test_an_error_in_a_lane_is_the_steps_error():
    examples = random_examples(4)
    lanes, _, _, rows = two_lanes(examples)
    with pytest.raises(IndexError):
        lanes.loss_and_gradients(examples[:1], rows, 1.0, share=1.0)
