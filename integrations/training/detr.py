"""Moment-DETR, QD-DETR and TR-DETR in a training: their flags, data, losses and predictions."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hero_plugin import Bridge, HeroModel, wrap_criterion
from hero_plugin.adapters.detr.adapter import INPUTS
from hero_plugin.adapters.detr.config import DETRConfig, DETRHyperparameters, MomentDETRHyperparameters
from hero_plugin.adapters.detr.matcher import span_cxw_to_xx
from hero_plugin.integrations.data import Record, Tokenizer, Vocabulary
from hero_plugin.integrations.data.feature_bank import FeatureBank
from hero_plugin.integrations.data.moments import clip_length_problem
from hero_plugin.integrations.scoring.qvhighlights import CLIP_LENGTH
from hero_plugin.integrations.scoring.submissions import (
    CLIPS_OFF,
    has_official_labels,
    official_scores,
    submission_line,
    unscored_videos,
)
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.settings import ConfigError, too_small
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.detr_batches import (
    DetrCollate,
    DetrExample,
    draw_targets,
    make_labels,
    seen_moments,
)
from hero_plugin.integrations.training.optim import OptimizerName, Schedule
from hero_plugin.integrations.training.queries import BridgedTokens, Queries, QueryFiles, WordSwaps, training_tokens
from hero_plugin.integrations.training.task import (
    Base,
    Batch,
    Grounded,
    Prediction,
    Scores,
    Task,
    VectorData,
    with_hero,
)
from hero_plugin.levels import map_tensors
from hero_plugin.tensors import at_least_float32

PUBLISHED_CLIP_LENGTH = 2.0
"""Seconds, in the published features of QVHighlights."""
ENDPOINTS = 2
"""Numbers that the collate function appends to a clip's features."""


@dataclass(frozen=True)
class DetrTrainConfig(DETRHyperparameters, TrainConfig):
    """The settings that the DETRs share; the recipe is that of Moment-DETR's training script, which its heirs kept."""

    ranks_clips: ClassVar[bool] = True
    earlier: ClassVar[Mapping[str, Any]] = {**TrainConfig.earlier, "scored_clip_length": 2.0}

    epochs: int = 200
    batch_size: int = 32
    lr: float = 1e-4
    schedule: Schedule = "step"
    optimizer: OptimizerName = "adamw_all"
    weight_decay: float = 1e-4
    clip_norm: float = 0.1
    seed: int = 2018
    max_clips: int = 75
    eval_batch_size: int = 100
    eval_every: int = 5

    query_features: Path | None = None
    """Instead of --words: a folder of qidQUERY.npz, each with the array last_hidden_state (words, width)."""
    clip_length: float | None = None
    """Seconds a clip lasts where all last the same: longer videos are cut at max_clips, moments found are rounded to
    whole clips. 0: a video's clips share its duration, and longer videos are pooled. Not given: 2 with
    --query-features (the published QVHighlights features), else 0."""
    scored_clip_length: float = 2.0
    """Seconds of the clips that annotators' saliency scores are of (QVHighlights: 2)."""
    max_words: int = 32
    """Longer queries are cut."""
    normalize_features: bool = True
    """Scale each clip's features to length 1, each feature folder's for itself."""
    normalize_words: bool = True
    """Scale each word's vector to length 1."""

    @property
    def seconds_per_clip(self) -> float:
        """Return the clips' one length, or 0 where they share their video's duration."""
        if self.clip_length is None:
            return PUBLISHED_CLIP_LENGTH if self.query_features else 0.0
        return self.clip_length

    def mistakes(self) -> list[str]:
        """Return what is wrong with the settings, one message each."""
        wrong = super().mistakes()
        if bool(self.words) == bool(self.query_features):
            wrong.append("give one of --words (a table of word vectors) and --query-features (a file a query)")
        if self.swap_words and self.query_features:
            wrong.append("--swap-words needs a table of word vectors, --words: a file per query has no near words")
        if self.clip_length is not None and not self.clip_length >= 0:
            wrong.append(f"--clip-length must be 0 or more seconds, got {self.clip_length}")
        if not self.scored_clip_length > 0:
            wrong.append(f"--scored-clip-length must be positive, got {self.scored_clip_length}")
        return wrong + too_small(self, max_words=1)


@dataclass(frozen=True)
class MomentDETRTrainConfig(MomentDETRHyperparameters, DetrTrainConfig):
    """Train Moment-DETR, plain or with HERO. Defaults are its authors' recipe."""

    base: ClassVar[str] = "moment_detr"
    title: ClassVar[str] = "Moment-DETR"


@dataclass(frozen=True)
class QDDETRTrainConfig(DetrTrainConfig):
    """Train QD-DETR, plain or with HERO. Defaults are its authors' recipe."""

    base: ClassVar[str] = "qd_detr"
    title: ClassVar[str] = "QD-DETR"


@dataclass(frozen=True)
class TRDETRTrainConfig(DetrTrainConfig):
    """Train TR-DETR, plain or with HERO. Defaults are its authors' recipe (scripts/train.sh)."""

    base: ClassVar[str] = "tr_detr"
    title: ClassVar[str] = "TR-DETR"

    seed: int = 2017
    vtc_loss_coef: float = 0.3
    """Weight of the loss between whole videos and queries."""
    ctc_loss_coef: float = 0.5
    """Weight of the loss between clips and queries."""


class DetrTask(Task):
    """The DETRs' losses and predictions, after their authors' ``train.py`` and ``inference.py``.

    Moments found are rounded to whole clips of ``clip_length`` seconds; 0 leaves them as they are.
    """

    scores_clips = True
    file_for_each_set = True

    def __init__(
        self, model: nn.Module, criterion: nn.Module, collate: DetrCollate, *, clip_length: float = 0.0
    ) -> None:
        self.model, self.criterion, self.collate, self.clip_length = model, criterion, collate, clip_length
        self._said = set[str]()
        self.following_rows = int(getattr(criterion, "negative_pairs", False))  # an authors' criterion does not say
        unused = ["contrastive_align_projection_vid", *([] if model.use_txt_pos else ["txt_position_embed"])]
        transformer: Any = model.transformer
        if len(transformer.decoder.layers) == 1:  # they take a layer's moments on to the next
            unused += ["query_scale", "bbox_embed"]
        self.unused_parameters = [
            name for name, _ in model.named_parameters() if not set(name.split(".")).isdisjoint(unused)
        ]

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Compute all losses of the criterion; ``loss`` is the weighted sum of those that have a weight."""
        targets = draw_targets(batch)
        outputs = model(*(batch[name] for name in INPUTS))
        # The forward may run in half precision; the losses and the matching must not.
        with torch.autocast(batch["src_vid"].device.type, enabled=False):
            losses = self.criterion.train()(map_tensors(lambda tensor, key: at_least_float32(tensor), outputs), targets)
        weights: Any = self.criterion.weight_dict
        total: Any = sum(losses[name] * weights[name] for name in losses if name in weights)
        reported = {name: value for name, value in losses.items() if isinstance(value, Tensor)}
        return {**reported, "loss": total}

    def predict(self, model: nn.Module, batch: Batch) -> Prediction:
        """Predict all moments of each query, most probable first, clipped to the video."""
        outputs = model(*(batch[name] for name in INPUTS))
        scores = outputs["pred_logits"].float().softmax(-1)[..., 0]
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        durations = batch["durations"][:, None, None]
        moments = span_cxw_to_xx(outputs["pred_spans"].float()) * self._seen(batch)[:, None, None]
        moments = torch.minimum(moments.clamp(min=0), durations)
        if self.clip_length:  # to whole clips; the last one may end behind the video
            moments = torch.minimum(torch.round(moments / self.clip_length) * self.clip_length, durations)
        moments = moments.gather(1, order.unsqueeze(-1).expand(-1, -1, 2))
        saliency = outputs["saliency_scores"].float()
        return Prediction(moments, scores, ranked(saliency, batch["src_vid_mask"]), saliency)

    def _seen(self, batch: Batch) -> Tensor:
        """Return the seconds (B,) that a video's spans are shares of, as in ``make_labels``."""
        clips, durations = batch["clips"], batch["durations"]
        return (clips * self.clip_length).to(durations.dtype) if self.clip_length else durations

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the saliency scores."""
        outputs = model(*(batch[name] for name in INPUTS)) if outputs is None else outputs
        return [outputs["saliency_scores"].float()], batch["src_vid_mask"]

    def scores(self, items: Sequence[DetrExample], grounded: Grounded) -> Scores:
        """Score a set; QVHighlights' official scores as well where every query has its annotations."""
        scores = super().scores(items, grounded)
        records = [item.record for item in items]
        if records and all(map(has_official_labels, records)):
            lines = self.prediction_lines("", items, grounded)
            official = official_scores(lines, records)
            # A range of lengths that no window is in has no score.
            scores.update({name: value for name, value in official["brief"].items() if value == value})
        return scores

    def merit(self, scores: Scores) -> float:
        """Return mAP over all windows, as upstream, where there is one; else the sum of the usual four scores."""
        return scores.get("MR-full-mAP", super().merit(scores))

    def prediction_lines(self, name: str, items: Sequence[DetrExample], grounded: Grounded) -> list[dict[str, Any]]:
        """Return a submission in QVHighlights' form, which has no place for the set's name; saliency is the model's.

        Where a video's clips are not of two seconds, saliency is left out on all lines: the form has a score for each
        such clip, on every line or on none. A warning says so, once, though each evaluation of a training comes here.
        """
        records = [item.record for item in items]
        off = unscored_videos(records, [len(grounded.saliency[row]) for row in range(len(items))], self.clip_length)
        if off:
            said = (
                f"{len(off)} of {len({record.video_id for record in records})} videos, {next(iter(off.values()))} "
                f"first, have not one clip for each {CLIP_LENGTH:g} s, give or take {CLIPS_OFF}: no saliency is "
                "written, and there are no figures of highlights"
            )
            if said not in self._said:
                warnings.warn(said, stacklevel=2)
            self._said.add(said)
        return [
            submission_line(
                item.record, grounded.moments[row], grounded.scores[row], None if off else grounded.saliency[row]
            )
            for row, item in enumerate(items)
        ]


def ranked(saliency: Tensor, mask: Tensor) -> Tensor:
    """Scale scores (B, T) to 0, a video's lowest, to 1, its highest; padding, by the mask (B, T), gets 0.

    The DETRs train only the order of these scores, so that their 0 means nothing.
    """
    real = mask.bool()
    low = saliency.masked_fill(~real, torch.inf).amin(1, keepdim=True)
    high = saliency.masked_fill(~real, -torch.inf).amax(1, keepdim=True)
    return ((saliency - low) / (high - low).clamp(min=1e-6)).masked_fill(~real, 0.0)


@dataclass(frozen=True)
class DetrBase(Base):
    """A DETR: its words are vectors of a table, or of a file per query.

    Attributes:
        model_config: The type of its model's own config.
        builder: Makes the model and its criterion of such a config.
    """

    config: type[DetrTrainConfig]
    model_config: type[DETRConfig]
    builder: Callable[[Any], tuple[nn.Module, nn.Module]]
    clone: tuple[str, str]
    clone_width: int | None = None
    reads_video_padding: bool = False

    def read_words(
        self,
        config: DetrTrainConfig,
        sets: Mapping[str, Sequence[Record]],
        split: Tokenizer,
        swaps: WordSwaps | None,
        screen: Screen | None,
    ) -> Queries:
        """Return the words of the sets as vectors: of a table, or one file per query."""
        if config.query_features is None:
            return super().read_words(config, sets, split, swaps, screen)
        return QueryFiles(config, [record for records in sets.values() for record in records], screen)

    def read(self, config: Any, paths: Mapping[str, Path], screen: Screen | None = None, **options: bool) -> Any:
        """Read all but the features; say which sets get no official scores as some of their queries lack labels."""
        data = super().read(config, paths, screen, **options)
        for name, records in data.sets.items():
            lacking = [record for record in records if not has_official_labels(record)]
            scored = name != "train" or not options.get("for_training", True)
            if screen is not None and scored and 0 < len(lacking) < len(records):
                screen.say(
                    f"{name}: {len(lacking)} of {len(records)} queries, {lacking[0].query_id} first, have no labels "
                    "that QVHighlights scores: the set gets no official scores"
                )
        return data

    def new_task(
        self, config: DetrTrainConfig, data: VectorData, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device
    ) -> DetrTask:
        """Build the task, with fresh weights."""
        # A query's features hold so many levels side by side; None where a word has one vector.
        levels = None if config.base_only or config.hero.levels_from == "encoder" else config.hero.levels
        width, left = divmod(data.queries.dim, levels or 1)
        if left:
            raise UserError(
                f"--hero.levels-from input: the queries' features of width {data.queries.dim} are not {levels} levels "
                "side by side; `hero-plugin data extract --queries ... --text-layers` writes as many as --hero.levels "
                "says"
            )
        model, criterion = self.build(config, width, bank.dim + ENDPOINTS)
        model = with_hero(model, config)
        if isinstance(model, HeroModel):
            criterion = wrap_criterion(criterion, model.config)
        collate = DetrCollate(bank, data.queries, levels)
        return DetrTask(model.to(device), criterion.to(device), collate, clip_length=config.seconds_per_clip)

    def build(self, config: DetrTrainConfig, text_dim: int, video_dim: int) -> tuple[nn.Module, nn.Module]:
        """Build model and criterion with fresh weights."""
        given = {each.name for each in fields(config)}
        same = {each.name: getattr(config, each.name) for each in fields(self.model_config) if each.name in given}
        same.update(max_v_l=config.max_clips, max_q_l=config.max_words)
        if config.seconds_per_clip:
            same["clip_length"] = config.seconds_per_clip
        else:
            same.pop("clip_length", None)
        try:
            settings = self.model_config(text_dim=text_dim, video_dim=video_dim, **same)
        except ValueError as error:
            raise ConfigError(f"{config.title}: {error}") from error
        return self.builder(settings)

    def examples(
        self,
        config: DetrTrainConfig,
        data: VectorData,
        name: str,
        bank: FeatureBank,
        vocabulary: Vocabulary,
        for_training: bool = False,
    ) -> list[DetrExample]:
        """Make one example per query of a set, with all its moments.

        For training, queries about what was cut off a video are left out, with a warning. ``DataError`` where clips
        of the length in the settings are not those of the features.
        """
        records, length = data.sets[name], config.seconds_per_clip
        if length:
            videos = {record.video_id: (record.duration, bank.clips(bank.rows[record.video_id])) for record in records}
            if problem := clip_length_problem(videos, length, config.max_clips):
                raise DataError([problem])
        made = []
        for record in records:
            row = bank.rows[record.video_id]
            clips = bank.clips(row)
            if not for_training or seen_moments(record, clips, length):
                made.append(DetrExample(record, row, make_labels(record, clips, length, config.scored_clip_length)))
        if len(made) < len(records):
            warnings.warn(
                f"{len(records) - len(made)} of {len(records)} queries to train on are about what --max-clips cuts off "
                "their video, and are left out",
                stacklevel=2,
            )
        return made

    def check_sizes(self, model: nn.Module, weights: Mapping[str, Tensor], data: Any, bank: FeatureBank) -> None:
        """Compare the widths of the first layers."""
        own = model.state_dict()
        for layer, extra, what, flag in (
            ("input_vid_proj", ENDPOINTS, "features", "--features of the same kind"),
            ("input_txt_proj", 0, "word vectors", "--words or --query-features of the same kind"),
        ):
            name = next(name for name in weights if name.endswith(f"{layer}.0.LayerNorm.weight"))
            width, now = (len(each[name]) - extra for each in (weights, own))
            if width != now:
                raise UserError(f"trained on {what} of width {width}, these have {now}; give {flag}")

    def bridged(
        self, trained: DetrTrainConfig, data: VectorData, known: Vocabulary, past: Sequence[Path] = ()
    ) -> VectorData:
        """Return ``data`` with words, or tokens of queries' files, that are bridged to the run's."""
        if trained.query_features is None:
            return super().bridged(trained, data, known)
        return replace(data, queries=BridgedTokens(data.queries, Bridge.of_tokens(training_tokens(trained, past))))
