"""Each bullet of the talk *State of GPT* has its section in a notebook, with code; each notebook checks its claims."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("[0-9]*.ipynb"))
BULLETS = {  # of the talk: notebook, heading of the section
    "data collection": ("01_pretraining", "Data collection"),
    "tokenization": ("01_pretraining", "Tokenization"),
    "GPT-3 vs LLaMA": ("01_pretraining", "GPT-3 and LLaMA"),
    "size is not everything": ("01_pretraining", "Size is not everything"),
    "context length": ("01_pretraining", "Context length"),
    "(B, T) batches with <|endoftext|>": ("01_pretraining", "Batches: (B, T) and <|endoftext|>"),
    "training curve": ("01_pretraining", "The training curve"),
    "base models learn general representations": ("02_base_models", "Base models learn general representations"),
    "base models can be prompted": ("02_base_models", "Base models can be prompted"),
    "base models in the wild": ("02_base_models", "Base models in the wild"),
    "base models are not assistants": ("02_base_models", "Base models are not assistants"),
    "SFT dataset": ("03_sft", "The SFT dataset"),
    "SFT training": ("03_sft", "SFT training"),
    "quality over quantity": ("03_sft", "Quality over quantity"),
    "LoRA": ("03_sft", "LoRA"),
    "RM dataset": ("04_rlhf", "The reward model dataset"),
    "RM training": ("04_rlhf", "Reward model training"),
    "RL": ("04_rlhf", "Reinforcement learning"),
    "why RLHF": ("04_rlhf", "Why RLHF"),
    "mode collapse": ("04_rlhf", "Mode collapse"),
    "assistants in the wild": ("04_rlhf", "Assistants in the wild"),
    "RLHF is still experimental": ("04_rlhf", "RLHF is experimental"),
    "human vs LLM text generation": ("05_thinking", "Human and LLM text generation"),
    "tokens to think": ("05_thinking", "Tokens to think"),
    "chain of thought, few-shot": ("05_thinking", "Chain of thought, few-shot"),
    "chain of thought, zero-shot": ("05_thinking", "Chain of thought, zero-shot"),
    "self-consistency": ("05_thinking", "Self-consistency"),
    "reflection": ("05_thinking", "Reflection"),
    "tree of thoughts": ("05_thinking", "Tree of thoughts"),
    "condition on good performance": ("05_thinking", "Condition on good performance"),
    "tool use": ("06_tools_and_agents", "Tool use"),
    "ReAct": ("06_tools_and_agents", "ReAct"),
    "AutoGPT": ("06_tools_and_agents", "AutoGPT"),
    "copilots over autopilots": ("06_tools_and_agents", "Copilots over autopilots"),
    "working memory": ("07_retrieval", "Working memory"),
    "retrieval recipe": ("07_retrieval", "The retrieval recipe"),
    "constrained prompting": ("08_constrained", "Constrained prompting"),
    "default recommendations: performance": ("10_recommendations", "Default recommendations: performance"),
    "default recommendations: cost": ("10_recommendations", "Default recommendations: cost"),
    "use cases and limits": ("10_recommendations", "Use cases and limits"),
    "OpenAI API": ("10_recommendations", "OpenAI API"),
}


def cells(path: Path) -> list[tuple[str, str]]:
    """Type and source of each cell."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def sections(path: Path) -> dict[str, list[str]]:
    """The code cells under each heading."""
    found: dict[str, list[str]] = {}
    heading = ""
    for kind, source in cells(path):
        if kind == "code":
            found.setdefault(heading, []).append(source)
        elif titles := re.findall(r"^#+ (.+?)\s*$", source, re.M):
            heading = titles[-1]
            found |= {title: [] for title in titles}
    return found


@pytest.mark.parametrize("bullet", BULLETS)
def test_each_bullet_has_its_section_with_code(bullet):
    name, heading = BULLETS[bullet]
    found = sections(NOTEBOOKS[0].with_name(f"{name}.ipynb"))
    assert heading in found, f"{name}.ipynb has no section {heading!r}"
    assert found[heading], f"in {name}.ipynb no code cell stands in the section {heading!r}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_says_how_to_run_it_and_ends_with_its_claims(path):
    found = cells(path)
    assert f"python -m jupyter_gpt {path.name}" in "".join(source for kind, source in found if kind == "markdown")
    assert [source for kind, source in found if kind == "code"][-1] == "%gpt claims"
    assert sum(source.count("gpt.claim(") for _, source in found) >= 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_is_committed_with_its_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] == at for at, cell in enumerate(code, 1)), "not run from top to bottom"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert "claims" in json.dumps(code[-1]["outputs"])


def test_no_two_notebooks_make_a_model_or_an_index_of_one_name():
    """They share a folder: who runs them in order would be asked to overwrite."""
    made = re.compile(
        r"^%%(?:corpus|pretrain|sft|classify|rank|rlhf) ([\w.-]+)|^%gpt (?:reward|index) ([\w.-]+)|"
        r"gpt\.(?:corpus|pretrain|sft|classify|rank|rlhf|reward|index)\(\s*f?\"([\w.-]+)",
        re.M,
    )
    owners: dict[str, set[str]] = {}
    for path in NOTEBOOKS:
        for kind, source in cells(path):
            for names in made.findall(source) if kind == "code" else ():
                owners.setdefault("".join(names), set()).add(path.stem)
    assert len(owners) > 20
    assert {name: both for name, both in owners.items() if len(both) > 1} == {}
