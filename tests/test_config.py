"""Settings are typed: what is unknown, missing or of the wrong kind is named with its file and key."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from stages.common import chat, config
from stages.common.errors import PipelineError


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("size", ["tiny", "135m", "0.6b", "1.7b", "4b"])
def test_every_size_has_complete_settings(worktree: Path, size: str) -> None:
    edit(worktree / "params.yaml", "model_size: 135m", f"model_size: {size}")
    config.main()
    assert config.model_card().size_label


@pytest.mark.parametrize(
    ("file", "old", "new", "read", "message"),
    [
        (
            "configs/135m.yaml",
            "learning_rate:",
            "lerning_rate:",
            config.train_config,
            "configs/135m.yaml: train.lerning_rate: unknown key; did you mean learning_rate?",
        ),
        (
            "configs/135m.yaml",
            "\ntrain:",
            "\ntrian:",
            config.train_config,
            "configs/135m.yaml: trian: unknown key",
        ),
        ("configs/135m.yaml", "rank: 16", "rank: many", config.train_config, "configs/135m.yaml: train.rank:"),
        ("configs/135m.yaml", "kind: wheel", "kind: weel", config.base_config, "configs/135m.yaml: base.kind:"),
        (
            "configs/135m.yaml",
            "gate: {}",
            "gate: {exact: 1}",
            config.gate_params,
            "configs/135m.yaml: gate.exact:",
        ),
        ("configs/135m.yaml", "  size_label: 135M\n", "", config.model_card, "card.size_label: missing"),
        (
            "params.yaml",
            "model_size: 135m",
            "model_size: 7b",
            config.model_size,
            "no configs/7b.yaml; known sizes",
        ),
        ("params.yaml", "\nseed:", "\nsede:", config.seed, "params.yaml: sede: unknown key; did you mean seed?"),
        (
            "configs/135m.yaml",
            "left_as_typed: [request, layout]",
            "left_as_typed: [requests]",
            config.left_as_typed,
            "configs/135m.yaml: left_as_typed.0: 'requests' is unknown; did you mean request?",
        ),
        (
            "configs/135m.yaml",
            "left_as_typed: [request, layout]",
            "left_as_typed: request",
            config.left_as_typed,
            "configs/135m.yaml: left_as_typed: Input should be a valid list",
        ),
        (
            "configs/135m.yaml",
            "left_as_typed: [request, layout]",
            "left_as_typed: [correct]",
            config.left_as_typed,
            "configs/135m.yaml: left_as_typed: every size leaves `correct` as typed",
        ),
        (
            "configs/135m.yaml",
            "left_as_typed: [request, layout]",
            "left_as_typed: [request, request]",
            config.left_as_typed,
            "configs/135m.yaml: left_as_typed: a family is named twice",
        ),
        (
            "configs/135m.yaml",
            "left_as_typed: [request, layout]",
            "left_as_tpyed: [request]",
            config.left_as_typed,
            "configs/135m.yaml: left_as_tpyed: unknown key; did you mean left_as_typed?",
        ),
        ("params.yaml", "bash: 0.35", "bash: 0.45", config.data_params, "`shells` add up to 1.1"),
        ("params.yaml", "bash: 0.35", "bsh: 0.35", config.data_params, "params.yaml: data.shells.bsh"),
        ("params.yaml", "slots: 8", "slots: 0", config.evaluate_params, "params.yaml: evaluate.slots:"),
        ("params.yaml", "slots: 8", "slots: 300", config.evaluate_params, "params.yaml: evaluate.slots:"),
        (
            "params.yaml",
            "latency_p95_max_ms: 500",
            "latency_p95_max_ms: .inf",
            config.gate_params,
            "params.yaml: gate.latency_p95_max_ms:",
        ),
        (
            "params.yaml",
            "- Q4_K_M",
            "- Q4_KM",
            config.quantize_params,
            "params.yaml: quantize.quants.0: 'Q4_KM' is unknown; did you mean Q4_K_M?",
        ),
        (
            "params.yaml",
            "    - Q4_K_M\n",
            "    - Q8_0\n    - Q8_0\n",
            config.quantize_params,
            "params.yaml: quantize: a quant is listed twice: Q8_0, Q8_0",
        ),
        ("params.yaml", "imatrix_rows: 300", "imatrix_rows: 3", config.quantize_params, "quantize.imatrix_rows:"),
        ("params.yaml", "seed: 20261124", "seed: true", config.seed, "params.yaml: seed: True is not a whole"),
        ("params.yaml", "seed: 20261124", "seed: -1", config.seed, "params.yaml: seed: -1 is not a whole number"),
        ("params.yaml", "seed: 20261124", f"seed: {2**63}", config.seed, f"params.yaml: seed: {2**63} is not"),
        (
            "params.yaml",
            "model_size: 135m",
            "model_size: ../configs/135m",
            config.model_size,
            "params.yaml: model_size: no configs/../configs/135m.yaml; known sizes: 0.6b",
        ),
        (
            "configs/135m.yaml",
            "learning_rate: 0.0007",
            "learning_rate: 7.0",
            config.train_config,
            "train.learning_rate: Input should be less than or equal to 1",
        ),
        (
            "params.yaml",
            "\nseed: 20261124",
            "\nseed: 1\nseed: 20261124",
            config.seed,
            "the key 'seed' is there twice",
        ),
        (
            "configs/135m.yaml",
            "rank: 16",
            "rank: 8\n  rank: 16",
            config.train_config,
            "the key 'rank' is there twice, first in line",
        ),
        ("params.yaml", "gate:\n", "gate: [\n", config.gate_params, "params.yaml:"),
        ("params.yaml", "rows: 150000", "rows: '150000'", config.data_params, "params.yaml: data.rows:"),
        ("params.yaml", "slots: 8", "slots: true", config.evaluate_params, "params.yaml: evaluate.slots:"),
        (
            "configs/135m.yaml",
            "\ngate: {}",
            "\ngate: 5\n_gate: {}",
            config.gate_params,
            "configs/135m.yaml: _gate",
        ),
        (
            "configs/135m.yaml",
            "gate: {}",
            "gate: {exact_match_min: 5}",
            config.gate_params,
            "configs/135m.yaml: gate.exact_match_min:",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_its_file_and_key(
    worktree: Path, file: str, old: str, new: str, read: Callable[[], object], message: str
) -> None:
    edit(worktree / file, old, new)
    with pytest.raises(PipelineError) as caught:
        read()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_may_set_a_limit_of_its_own(worktree: Path) -> None:
    edit(worktree / "configs/135m.yaml", "gate: {}", "gate: {latency_p95_max_ms: 250}")
    assert config.gate_params().latency_p95_max_ms == 250
    edit(worktree / "params.yaml", "model_size: 135m", "model_size: tiny")
    assert config.gate_params().latency_p95_max_ms == 500


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  wit:  #", "  wti:  #", "configs/135m.yaml: train_of.wti: unknown key; did you mean wit?"),
        ("  correct: {}\n", "", "configs/135m.yaml: train_of.correct: missing; add it"),
        ("  correct: {}\n", "  correct: 5\n", "configs/135m.yaml: train_of.correct: Input should be a valid dict"),
        (
            "    rows_per_step",
            "    rows_per_stpe",
            "configs/135m.yaml: train_of.wit.rows_per_stpe: unknown key; did you mean rows_per_step?",
        ),
        ("    row_tokens: 512", "    row_tokens: 0", "configs/135m.yaml: train_of.wit.row_tokens:"),
    ],
)
def test_a_wrong_setting_of_a_task_is_named_too(worktree: Path, old: str, new: str, message: str) -> None:
    edit(worktree / "params.yaml", "task: correct", "task: wit")
    edit(worktree / "configs/135m.yaml", old, new)
    with pytest.raises(PipelineError) as caught:
        config.train_config()
    assert str(caught.value).startswith(message)


def test_a_task_may_set_how_it_is_trained(worktree: Path) -> None:
    common = config.train_config()
    edit(worktree / "params.yaml", "task: correct", "task: wit")
    own = config.train_config()
    assert own.row_tokens > common.row_tokens
    assert own.learning_rate == common.learning_rate


def test_a_stage_needs_only_the_sections_it_asks_for(worktree: Path) -> None:
    (worktree / "params.yaml").write_text("model_size: tiny\ntask: wit\nseed: 3\n", encoding="utf-8")
    assert config.seed() == 3
    assert config.train_config().rank == 8
    with pytest.raises(PipelineError, match="gate: missing"):
        config.gate_params()


def test_the_settings_know_the_tasks_and_shells_of_the_prompts() -> None:
    """They are written twice, so that a change to the prompts re-runs only the stages that use them."""
    assert get_args(config.Task) == chat.TASKS
    assert set(get_args(config.Shell)) == set(chat.SHELLS)


def test_a_small_size_leaves_requests_as_typed_and_a_large_one_answers_them(worktree: Path) -> None:
    assert config.left_as_typed() == ("request", "layout")
    edit(worktree / "params.yaml", "model_size: 135m", "model_size: 1.7b")
    assert config.left_as_typed() == ()


def test_every_quant_is_one_that_the_package_gguf_knows() -> None:
    from gguf import LlamaFileType

    assert {f"MOSTLY_{quant}" for quant in get_args(config.Quant)} <= {kind.name for kind in LlamaFileType}


@pytest.mark.parametrize("text", ["", "[]\n", "shells: [bash]\nseen: 1\nlnes: []\n", "shells: [bash\n"])
def test_broken_promises_are_found_before_anything_is_made(worktree: Path, text: str) -> None:
    config.main()
    (worktree / "data/promised.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match=r"^data/promised\.yaml") as caught:
        config.main()
    assert "\n" not in str(caught.value)
