"""What a base may return besides dicts and tuples of tensors, and what HERO says of the rest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from hero_plugin import TwoStage, wrap_model
from tests.core.bases import DIM, QUERY_DIM, VIDEO_DIM, ToyFuser, inputs, shake


class Mood(Enum):
    GOOD = 1


@dataclass(frozen=True)
class Answer:
    score: Tensor
    mood: Mood
    seconds: float


class Returns(nn.Module):
    """A predictor that returns whatever a function makes of a clip score (B, T) and the mask."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.head, self.make = nn.Linear(DIM, 1), make

    def forward(self, fused: Tensor, video_mask: Tensor) -> Any:
        return self.make(self.head(fused).squeeze(-1), video_mask)


def base(make: Any, **options: Any) -> TwoStage:
    return TwoStage(ToyFuser(DIM), Returns(make), DIM, nn.Linear(VIDEO_DIM, DIM), nn.Linear(QUERY_DIM, DIM), **options)


def both(make: Any, **choices: Any) -> tuple[Any, Any]:
    """What the base returns and what it returns with HERO around, fresh: the same, up to rounding."""
    plain, arguments = base(make).eval(), inputs()
    return plain(*arguments), wrap_model(plain, relevance="pair", **choices)(*arguments)


def trimmed(scores: Tensor, mask: Tensor) -> list[Tensor]:
    """One tensor a sample, as long as its video."""
    return [score[: int(real.sum())] for score, real in zip(scores, mask, strict=True)]


class Scores(NamedTuple):
    chance: Tensor
    logit: Tensor


@torch.no_grad()
def test_the_fields_of_a_named_tuple_are_names():
    """Certain scores would pass 1 if they were combined as logits with weights that add up to more than 1."""
    one = base(lambda scores, mask: Scores(torch.ones_like(scores), scores), kinds={"chance": "probability"})
    model = wrap_model(one, relevance="pair", normalize=False)
    model.hero.aggregation.mlp[2].bias.fill_(2.0)
    got = model(*inputs())
    assert type(got) is Scores and (got.chance <= 1).all()


@pytest.mark.parametrize("make", [lambda scores, mask: {"chance": scores.sigmoid()}, lambda scores, mask: (scores,)])
def test_a_kind_for_an_output_that_is_not_there_is_refused(make):
    model = wrap_model(base(make, kinds={"chances": "probability"}), relevance="pair")
    with pytest.raises(ValueError, match=r"kinds names 'chances', but the outputs are '(chance|0)', of which"):
        model(*inputs())


def test_a_kind_for_an_output_that_is_not_always_there_is_named():
    one = base(lambda scores, mask: (scores,), kinds={"0": "logits", "1": "probability"})
    with pytest.raises(ValueError, match=r"kinds names '1', but the outputs are '0': name each .* optional_outputs"):
        wrap_model(one, relevance="pair")(*inputs())
    one.optional_outputs = ("1",)
    assert len(wrap_model(one, relevance="pair")(*inputs())) == 1


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"kind of output 'chance' must be one of 'logits', .*, got 'logit'"):
        wrap_model(base(lambda scores, mask: {"chance": scores.sigmoid()}, kinds={"chance": "logit"}), relevance="pair")


@torch.no_grad()
def test_a_dataclass_stays_one():
    expected, got = both(lambda scores, mask: Answer(scores, Mood.GOOD, 2.5))
    assert type(got) is Answer and (got.mood, got.seconds) == (Mood.GOOD, 2.5)
    torch.testing.assert_close(got.score, expected.score)


@torch.no_grad()
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_a_list_of_one_item_per_sample(levels):
    expected, got = both(
        lambda scores, mask: {
            "trimmed": trimmed(scores, mask),
            "names": [f"sample {place % 3}" for place in range(len(scores))],
            "found": [{"best": each.max(), "place": 7} for each in trimmed(scores, mask)],
        },
        levels=levels,
    )
    assert [len(each) for each in got["trimmed"]] == [7, 4, 5]
    for one, other in zip(expected["trimmed"], got["trimmed"], strict=True):
        torch.testing.assert_close(one, other)
    assert got["names"] == ["sample 0", "sample 1", "sample 2"]
    for one, other in zip(expected["found"], got["found"], strict=True):
        assert one["best"].shape == other["best"].shape and other["place"] == 7
        torch.testing.assert_close(one["best"], other["best"])


@torch.no_grad()
def test_lists_of_samples_combine_over_levels_as_batches_do():
    made = base(lambda scores, mask: (scores, [score * 1.0 for score in scores]))
    model, arguments = shake(wrap_model(made, relevance="pair")).eval(), inputs()
    whole, listed = model(*arguments)
    torch.testing.assert_close(torch.stack(listed), whole)
    assert not torch.allclose(whole, made.eval()(*arguments)[0], atol=1e-3)


@torch.no_grad()
def test_a_list_of_layers_is_no_list_of_samples():
    """Twelve layers, and four levels of three samples."""
    expected, got = both(lambda scores, mask: [{"score": scores * layer} for layer in range(12)])
    assert len(got) == 12
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one["score"], other["score"])


def test_a_list_that_may_be_of_layers_or_of_samples_is_refused():
    """Twelve tensors of twelve rows: four levels of three samples, the best twelve clips of each."""
    made = base(lambda scores, mask: {"best": [score.expand(12) for score in scores[:, :1]]})
    with pytest.raises(ValueError, match="output best is a list of 12 items with 12 rows each: of one per sample, or"):
        wrap_model(made, relevance="pair")(*inputs())
    layers = base(lambda scores, mask: {"best": [scores * layer for layer in range(12)]}, kinds={"best": "logits"})
    assert len(wrap_model(layers, relevance="pair")(*inputs())["best"]) == 12


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize(
    "value", [lambda scores: scores.detach().numpy(), lambda scores: torch.distributions.Normal(scores, 1.0)]
)
def test_what_cannot_be_combined_is_named(value, checkpoint):
    model = wrap_model(base(lambda scores, mask: {"odd": value(scores)}), relevance="pair", checkpoint=checkpoint)
    with pytest.raises(TypeError, match=r"output odd is a (ndarray|Normal), which cannot be combined over levels"):
        model(*inputs())


@pytest.mark.parametrize("levels", [1, 4])
def test_with_one_level_there_is_nothing_to_combine(levels):
    model = wrap_model(base(lambda scores, mask: {"odd": scores.detach().numpy()}), relevance="pair", levels=levels)
    if levels == 1:
        assert model(*inputs())["odd"].shape == (3, 7)


def test_a_tensor_without_a_batch_is_named():
    model = wrap_model(base(lambda scores, mask: {"score": scores, "odd": scores.sum(0)}), relevance="pair")
    with pytest.raises(ValueError, match=r"output odd \(7,\) must have the batch first.*'whole'"):
        model(*inputs())


class Averaging(nn.Module):
    """A fuser that reads padded words, too."""

    def forward(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Tensor:
        return video + query.mean(1, keepdim=True)


@torch.no_grad()
@pytest.mark.parametrize("reads_padding", [False, True])
def test_a_base_that_reads_padding_starts_as_itself(reads_padding):
    plain = base(lambda scores, mask: scores, reads_padding=reads_padding).eval()
    plain.fuser, arguments = Averaging(), inputs()
    got = wrap_model(plain, relevance="pair", start_as_base=True)(*arguments)
    assert torch.allclose(got, plain(*arguments), atol=1e-5) == reads_padding


class Recurrent(Averaging):
    """A fuser that runs an LSTM over the words, padding and all."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(DIM, DIM, batch_first=True)

    def forward(self, video: Tensor, query: Tensor, video_mask: Tensor, query_mask: Tensor) -> Tensor:
        return super().forward(video, self.rnn(query)[0], video_mask, query_mask)


@torch.no_grad()
def test_a_recurrent_layer_is_asked_about():
    with pytest.warns(UserWarning, match=r"Recurrent has a recurrent layer.* say reads_padding=True"):
        TwoStage(Recurrent(), Returns(lambda scores, mask: scores), DIM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain, _ = (TwoStage(Recurrent(), nn.Identity(), DIM, reads_padding=said) for said in (True, False))
    plain.predictor, arguments = Returns(lambda scores, mask: scores), inputs()
    plain.project_video, plain.project_query = nn.Linear(VIDEO_DIM, DIM), nn.Linear(QUERY_DIM, DIM)
    got = wrap_model(plain, relevance="pair").eval()(*arguments)
    assert torch.allclose(got, plain(*arguments), atol=1e-5)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_numbers_that_differ_between_levels_are_refused(checkpoint):
    """Level 0's would be the answer, beside tensors that are combined."""
    model = shake(wrap_model(base(lambda scores, mask: {"s": scores, "best": scores.argmax(-1).tolist()}),
                             relevance="pair", checkpoint=checkpoint), 0.5).train()  # fmt: skip
    with pytest.raises(TypeError, match="has numbers that differ between levels"):
        for _ in range(20):
            model(*inputs())
    same = base(lambda scores, mask: {"s": scores, "sizes": [float("nan")] * len(scores), "layers": [1, 2]})
    assert wrap_model(same, relevance="pair", checkpoint=checkpoint).train()(*inputs())["layers"] == [1, 2]


@dataclass
class Further:
    score: Tensor

    def __post_init__(self) -> None:
        self.doubled = 2 * self.score

    @cached_property
    def probability(self) -> Tensor:
        return self.score.sigmoid()


def test_what_a_dataclass_has_besides_fields_is_combined_or_made_anew():
    def make(scores: Tensor, mask: Tensor) -> Further:
        made = Further(scores)
        assert made.probability.shape == scores.shape  # cached
        return made

    with torch.no_grad():
        answer = shake(wrap_model(base(make), relevance="pair"))(*inputs())
    assert answer.score.shape == answer.doubled.shape == (3, 7)
    torch.testing.assert_close(answer.doubled, 2 * answer.score)
    assert torch.equal(answer.probability, answer.score.sigmoid())
