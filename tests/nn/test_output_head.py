"""What makes logits of hidden states: found out from the model itself, on the shapes that no kernel knows."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from helpers.architectures import VOCAB, tiny
from jupyter_gpt.errors import GPTError
from jupyter_gpt.nn.loss import IGNORE
from jupyter_gpt.nn.output_head import output_head
from jupyter_gpt.nn.transformer import Trunk

IDS = torch.randint(5, VOCAB, (2, 11), generator=torch.Generator().manual_seed(3))


def headed(model, dtype=torch.float32):
    trunk = Trunk(model, 64, dtype)
    return trunk, output_head(trunk)


def check(model, kind):
    """Logits, loss with gradients, log-probabilities and entropies are the model's own; the head is of the kind
    said.
    """
    trunk, head = headed(model)
    found = "matrix" if head.matrix is not None else "model" if trunk.body is trunk.model else "around"
    assert found == kind and not list(trunk.parameters()), "a trunk owns nothing"
    inner = trunk.model
    hidden, own = trunk(IDS), inner(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(head.logits(hidden[0]), own[0])
    targets = IDS.roll(-1, 1)
    targets[:, ::3] = IGNORE
    wanted = cross_entropy(own.flatten(0, 1), targets.flatten())
    loss = head.cross_entropy(hidden, targets)
    torch.testing.assert_close(loss, wanted)
    learned = [p for p in model.parameters() if p.requires_grad]
    for ours, theirs in zip(*(torch.autograd.grad(x, learned, retain_graph=True) for x in (loss, wanted)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)
    every = torch.log_softmax(own[0], -1)
    logp, entropy = head.logprobs(hidden[0], IDS[1])
    torch.testing.assert_close(logp, every.gather(1, IDS[1][:, None])[:, 0])
    torch.testing.assert_close(entropy, -(every.exp() * every).sum(-1))
    assert not entropy.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(head.cross_entropy(hidden, targets), wanted)


def learning(model):
    return model.requires_grad_(True)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba", "mixtral", "opt", "mpt", "llama4_text"])
def test_a_matrix_and_nothing_else(kind):
    check(learning(tiny(kind)), "matrix")


@pytest.mark.parametrize(
    "kind", ["gemma2", "cohere", "granite", "phi", "minicpm3", "bert", "modernbert-decoder", "xlstm"]
)
def test_caps_scales_biases_and_layers(kind):
    check(learning(tiny(kind)), "around")


def test_a_head_with_an_adapter_that_says_nothing_yet():
    import peft

    adapters = [
        ("around", peft.LoraConfig(r=2, target_modules=["q_proj", "lm_head"])),
        ("around", peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])),
        ("matrix", peft.LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices={"lm_head": [3, 9]})),
    ]
    for way, config in adapters:
        model = peft.get_peft_model(tiny("llama"), config).eval()
        trunk, head = headed(model)
        with torch.no_grad():
            before = head.cross_entropy(trunk(IDS), IDS)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
        check(model, way)
        assert abs(head.cross_entropy(trunk(IDS), IDS) - before) > 1e-3, "the head made before is that of now"


def test_a_bias_that_is_zero_until_it_is_trained():
    model = tiny("phi")
    with torch.no_grad():
        model.lm_head.bias.zero_()
    check(learning(model), "around")


def test_a_hook_on_the_head():
    model = learning(tiny("llama"))
    model.lm_head.register_forward_hook(lambda layer, inputs, output: output * 2)
    check(model, "around")


def test_logits_that_are_more_than_hidden_states_tell():
    class Copying(type(tiny("llama"))):
        def forward(self, input_ids=None, **options):
            found = super().forward(input_ids=input_ids, **options)
            found.logits = found.logits + nn.functional.one_hot(input_ids, VOCAB)
            return found

    model = learning(tiny("llama"))
    model.__class__ = Copying
    check(model, "model")


def test_a_soft_cap_shows_in_half_precision_and_at_small_logits():
    for dtype in (torch.bfloat16, torch.float16):
        for cap, plain in ((50.0, False), (None, True)):
            model = tiny("gemma2", final_logit_softcapping=cap)
            with torch.no_grad():
                model.lm_head.weight.mul_(0.1)
            assert (headed(model.to(dtype), dtype)[1].matrix is not None) == plain


def test_activations_of_another_format_than_the_weights():
    model = tiny("gemma2")
    hidden, head = headed(model, torch.bfloat16)
    found = head.cross_entropy(hidden(IDS), IDS)
    own = cross_entropy(model(input_ids=IDS).logits.flatten(0, 1), IDS.flatten())
    assert found.dtype == torch.float32 and abs(found - own) < 0.02 * own


def test_a_router_that_chooses_otherwise_now_and_then_is_no_other_head():
    model, calls = tiny("mixtral").bfloat16(), []

    def wavering(layer, inputs, output):
        calls.append(1)
        output[0][0, 3] *= 1 + 0.5 * (len(calls) % 2)

    model.model.norm.register_forward_hook(lambda layer, inputs, output: wavering(layer, inputs, (output,)))
    _, head = headed(model, torch.bfloat16)
    assert head.matrix is not None


def test_weights_that_are_no_numbers_are_said_to_be():
    model = tiny("mistral")
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(GPTError, match=r"^the model's logits are not finite: its weights are damaged"):
        headed(model)


@pytest.mark.parametrize(
    "kind, options, why",
    [
        ("xlnet", {}, "a token sees those that come after it"),
        ("bert", {"is_decoder": False}, "a token sees those that come after it"),
        ("xmod", {}, "on text alone they fail"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(kind, options, why):
    with pytest.raises(GPTError, match=f"^{kind} models cannot be trained here: {why}.*$") as error:
        headed(tiny(kind, **options))
    assert "\n" not in str(error.value)
