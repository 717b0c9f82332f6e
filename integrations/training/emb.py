"""EMB in a training: its flags, data, words, losses and predictions."""

from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from hero_plugin import HeroModel
from hero_plugin.adapters.emb import EMB, EMBConfig, elastic_threshold
from hero_plugin.adapters.emb.config import EMBHyperparameters
from hero_plugin.adapters.emb.model import FIRST_WORD, PAD, UNK
from hero_plugin.integrations.data import Record, Tokenizer, Vocabulary, WordVectors, load_word_vectors
from hero_plugin.integrations.data.feature_bank import FeatureBank
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData
from hero_plugin.integrations.training.queries import SAMPLE, BridgedWords, Queries, check_same_table, padded_rows
from hero_plugin.integrations.training.task import Base, Batch, Prediction, Task, VectorCollate, with_hero
from hero_plugin.integrations.training.vector_base import VectorTask
from hero_plugin.tensors import at_least_float32

WORD_TABLE = "embedding_net.word_emb.glove_vec"


@dataclass(frozen=True)
class EmbTrainConfig(EMBHyperparameters, TrainConfig):
    """Train EMB, plain or with HERO. Defaults are the paper's recipe."""

    base: ClassVar[str] = "emb"
    title: ClassVar[str] = "EMB"
    required = (*TrainConfig.required, "words")

    word_norm: float = 5.5
    """Scale the word vectors to this mean length (GloVe's own, which the recipe is made for); 0: leave them."""

    @property
    def positions(self) -> int:
        """Return the number of positions: the most words, and the most clips."""
        return max(128, self.max_clips)

    def emb(self, video_dim: int, word_dim: int) -> EMBConfig:
        """Return EMB's own config, for features and words of these widths."""
        same = {each.name: getattr(self, each.name) for each in fields(EMBHyperparameters)}
        return EMBConfig(word_dim=word_dim, video_feature_dim=video_dim, max_pos_len=self.positions, **same)


@dataclass
class EmbData(GroundingData):
    """Records, features, and a table of word vectors."""

    vectors: WordVectors
    bridged: bool = False
    """Whether words that training never had are read as mixtures of those that it had."""


class WordIds(Queries):
    """Words as rows of EMB's table, whose words are ``vocabulary``; longer queries than ``max_words`` are cut."""

    dim = 1  # of a row, which is a number

    def __init__(self, vocabulary: Vocabulary, tokenize: Tokenizer, max_words: int) -> None:
        self.vocabulary, self.tokenize, self.max_words = vocabulary, tokenize, max_words

    def batch(self, records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
        """Return rows (B, L) long, with ``UNK`` for words that the table lacks and ``PAD``, and the mask (B, L)."""
        sentences = [self.tokenize(record.sentence)[: self.max_words] for record in records]
        ids, mask = padded_rows([self.vocabulary.rows(words, missing=UNK - FIRST_WORD) for words in sentences])
        return np.where(mask, ids + FIRST_WORD, PAD), mask


class EmbTask(Task):
    """EMB's losses and predictions, after its authors' ``main.py``; the labels become elastic over ``epochs``."""

    def __init__(self, model: nn.Module, collate: VectorCollate, settings: EMBConfig, epochs: int) -> None:
        self.model, self.collate, self.settings, self.epochs = model, collate, settings, epochs

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Compute EMB's three losses; the wrapped model's ``compute_loss`` adds HERO's two."""
        outputs = run(model, batch)
        # The forward may run in half precision; cross-entropies on probabilities must not.
        with torch.autocast(batch["video"].device.type, enabled=False):
            return self._losses(model, tuple(map(at_least_float32, outputs)), batch, epoch)

    def _losses(self, model: Any, outputs: tuple[Tensor, ...], batch: Batch, epoch: int) -> dict[str, Tensor]:
        settings = self.settings
        h_score, start_logits, end_logits, proposals, p_score, p_mask = outputs
        first, last = batch["first"], batch["last"]
        clips = torch.stack([first, last], dim=-1)
        real = torch.arange(h_score.shape[1], device=h_score.device) < batch["clips"].unsqueeze(1)
        threshold = elastic_threshold(epoch, self.epochs, settings.threshold)
        found = (proposals, p_score, p_mask)
        highlight = model.compute_highlight_loss(
            h_score, None, real.to(h_score.dtype), clips, *found, threshold=threshold, extend=settings.extend
        )
        location = model.compute_loss(start_logits, end_logits, first, last, *found, threshold=threshold)
        ranking = model.compute_ranking_loss(
            VectorTask.seconds(batch, first[:, None], last[:, None]).squeeze(1),
            VectorTask.seconds(batch, proposals[..., 0], proposals[..., 1]) * p_mask.unsqueeze(-1),
            p_score,
            p_mask,
            min_iou=settings.min_iou,
            max_iou=settings.max_iou,
        )
        losses = {"loss": location + settings.highlight_lambda * highlight + settings.rank_lambda * ranking}
        if isinstance(model, HeroModel):
            added = model.hero_losses()  # compute_loss has added them: what is logged as EMB's is without them
            losses.update(added)
            location = location - sum(model.config.loss_weights[name] * value for name, value in added.items())
        return {**losses, "loss_location": location, "loss_highlight": highlight, "loss_ranking": ranking}

    def predict(self, model: Any, batch: Batch) -> Prediction:
        """Predict the most probable boundaries, as EMB reports by default (not its elastic ones)."""
        outputs = run(model, batch)
        h_score, start_logits, end_logits = map(at_least_float32, outputs[:3])
        first, last = model.predictor.extract_index(start_logits, end_logits)
        moments = VectorTask.seconds(batch, first[:, None], last[:, None])
        score = _chosen(start_logits, first) * _chosen(end_logits, last)
        relevance = getattr(model, "relevance", None)
        relevance = h_score if relevance is None else at_least_float32(relevance).sigmoid()
        return Prediction(moments, score.unsqueeze(1), relevance * batch["video_mask"])

    def clip_logits(self, model: nn.Module, batch: Batch, outputs: Any = None) -> tuple[list[Tensor], Tensor]:
        """Return the logits of the start, of the end and, with HERO, of the clips' relevance."""
        _, start_logits, end_logits, *_ = run(model, batch) if outputs is None else outputs
        relevance = [model.relevance] if isinstance(model, HeroModel) and model.relevance is not None else []
        return [*map(at_least_float32, (start_logits, end_logits, *relevance))], batch["video_mask"]


def run(model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
    """Run EMB's forward on a batch."""
    return model(batch["words"], None, batch["video"], batch["video_mask"], batch["word_mask"])


def _chosen(logits: Tensor, index: Tensor) -> Tensor:
    return logits.softmax(-1).gather(1, index[:, None]).squeeze(1)


def _word_table(weights: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """Return the name and the values (words, width) of the word table among a model's weights."""
    return next((name, each) for name, each in weights.items() if name.endswith(WORD_TABLE))


class EmbBase(Base):
    """EMB: its word table is part of the model, and grows with the words of an evaluation."""

    config = EmbTrainConfig
    data = EmbData
    own_parameters = (WORD_TABLE, "embedding_net.char_emb.char_emb.weight")
    clone = ("EMB", "model.emb")

    def look_up(self, config: EmbTrainConfig, words: set[str], split: Tokenizer, of: str, flag: str) -> WordVectors:
        """Return words of a table, if it has any."""
        return load_word_vectors(config.word_table, words)

    def vocabulary(self, config: EmbTrainConfig, data: EmbData) -> Vocabulary:
        """Return the words of the data that have vectors."""
        vocabulary = Vocabulary.of(data.sentences("train"), data.sentences(), data.vectors, config.word_norm)
        if not len(vocabulary):
            raise UserError("no word of the annotations has a vector in the word table; check --words and --tokenizer")
        # Afterwards, so that they do not decide on the scale.
        return vocabulary if data.swaps is None else vocabulary.extended([data.swaps.words], data.vectors)

    def new_task(
        self, config: EmbTrainConfig, data: EmbData, bank: FeatureBank, vocabulary: Vocabulary, device: torch.device
    ) -> EmbTask:
        """Build the task, with fresh weights around a table of frozen word vectors."""
        queries = WordIds(vocabulary, data.tokenize, config.positions)
        return self._build(config, vocabulary.table(data.vectors), VectorCollate(bank, queries), device)

    def load_task(
        self,
        config: EmbTrainConfig,
        data: EmbData,
        bank: FeatureBank,
        known: Vocabulary,
        weights: MutableMapping[str, Tensor],
        device: torch.device,
    ) -> tuple[EmbTask, Vocabulary]:
        """Load a run's model; new words get their vectors from ``data.vectors``, scaled as the old ones."""
        vocabulary = known.extended(data.sentences(), data.vectors)
        new = Vocabulary(vocabulary.words[len(known) :], known.scale)
        name, table = _word_table(weights)
        if len(new) and table.shape[1] != data.vectors.dim:
            raise UserError(
                f"the run's word vectors have {table.shape[1]} numbers, this word table {data.vectors.dim}; "
                "give --words the table that the run was trained with"
            )
        if len(new):
            table = torch.cat([table, torch.from_numpy(new.table(data.vectors))])
        width = next(
            each.shape[1] for name, each in weights.items() if name.endswith("video_affine.linear.conv1d.weight")
        )
        if width != bank.dim:
            raise UserError(
                f"trained on features of width {width}, these have {bank.dim}; give --features of the same kind"
            )
        queries: Queries = WordIds(vocabulary, data.tokenize, config.positions)
        if data.bridged:
            unknown = weights[name.replace("glove_vec", "unk_vec")][0].numpy()
            vectors = WordVectors(list(vocabulary.words), table.numpy())
            queries = BridgedWords.of_table(vectors, data.tokenize, known, config.positions, unknown)
        task = self._build(config, table.numpy(), VectorCollate(bank, queries), device)
        weights = copy(weights)  # a copy that has its notes, of which levels answer
        weights[name] = table
        task.model.load_state_dict(weights)
        return task, vocabulary

    def check_words(self, data: EmbData, known: Vocabulary, weights: Mapping[str, Tensor]) -> None:
        """Compare the vectors of words of the run, which are among its weights."""
        vectors, (_, table) = data.vectors, _word_table(weights)
        if not len(vectors) or table.shape[1] != vectors.dim:
            return  # no vector is read from it, or it is refused by its width
        if vectors.source is not None and not any(word in vectors for word in known.words):
            vectors = load_word_vectors(vectors.source, known.words)
        rows = [row for row, word in enumerate(known.words) if word in vectors] or range(len(known))
        sample = {known.words[row]: table[row].tolist() for row in rows[:SAMPLE]}

        def vector(word: str) -> np.ndarray:
            return vectors.vectors[vectors.index[word]] * known.scale

        check_same_table(str(data.vectors.source or "the word table"), vectors.index, vector, sample)

    def bridged(self, trained: EmbTrainConfig, data: EmbData, known: Vocabulary, past: Sequence[Path] = ()) -> EmbData:
        """Return ``data`` with words that are bridged to the run's, whose table is among the weights."""
        return replace(data, bridged=True)

    def _build(self, config: EmbTrainConfig, table: np.ndarray, collate: VectorCollate, device: Any) -> EmbTask:
        settings = config.emb(video_dim=collate.bank.dim, word_dim=table.shape[1])
        return EmbTask(with_hero(EMB(settings, table), config).to(device), collate, settings, config.epochs)
