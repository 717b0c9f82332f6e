"""EMB, Elastic Moment Bounding (Huang et al., ECCV 2022), as its authors published it, and faster."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.cpu_ops import Dropout
from hero_plugin.adapters.emb.config import EMBConfig
from hero_plugin.adapters.emb.encoder import GuidedAttentionEncoder
from hero_plugin.adapters.emb.heads import ConditionedPredictor, HighLightLayer, ProposalRanker, VSLFuser
from hero_plugin.adapters.emb.layers import Conv1D, VisualProjection
from hero_plugin.adapters.emb.losses import highlight_labels, positions_between, pseudo_moment, range_loss
from hero_plugin.adapters.emb.proposals import scatter_to_map
from hero_plugin.hem import sinusoid
from hero_plugin.tensors import expect_shape

PAD, UNK, FIRST_WORD = 0, 1, 2


class WordEmbedding(nn.Module):
    """Frozen word vectors with a learned vector for unknown words, or a learned table without them."""

    def __init__(
        self, num_words: int, word_dim: int, drop_rate: float, word_vectors: Tensor | np.ndarray | None
    ) -> None:
        super().__init__()
        self.is_pretrained = word_vectors is not None
        if self.is_pretrained:
            vectors = torch.as_tensor(word_vectors, dtype=torch.float32).detach().clone()
            self.pad_vec = nn.Parameter(torch.zeros(1, word_dim), requires_grad=False)
            self.unk_vec = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, word_dim)))
            self.glove_vec = nn.Parameter(vectors, requires_grad=False)
        else:
            self.word_emb = nn.Embedding(num_words, word_dim, padding_idx=PAD)
        self.dropout = Dropout(drop_rate)

    def forward(self, word_ids: Tensor) -> Tensor:
        """Embed: word_ids (B, L) long, 0 padding, 1 unknown, or vectors (B, L, word_dim) -> (B, L, word_dim)."""
        if word_ids.is_floating_point():
            return self.dropout(word_ids)
        if not self.is_pretrained:
            return self.dropout(self.word_emb(word_ids))
        # Looked up beside the table, not in one joined with it: joining copies the vocabulary every step.
        known = F.embedding((word_ids - FIRST_WORD).clamp(min=0), self.glove_vec)
        ids = word_ids.unsqueeze(-1)
        words = torch.where(ids == UNK, self.unk_vec, known)
        return self.dropout(torch.where(ids == PAD, self.pad_vec.detach(), words))


class CharacterEmbedding(nn.Module):
    """Parameters of upstream's character embedding, which its forward computes and never uses.

    Kept, frozen, so that checkpoints load; nothing here is ever computed.
    """

    def __init__(self, num_chars: int, char_dim: int) -> None:
        super().__init__()
        self.char_emb = nn.Embedding(num_chars, char_dim, padding_idx=0)
        self.char_convs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(char_dim, channels, kernel_size=(1, width)))
            for width, channels in ((1, 10), (2, 20), (3, 30), (4, 40))
        )
        self.requires_grad_(False)


class Embedding(nn.Module):
    """Word embedding, projected to the model's width."""

    def __init__(self, sizes: EMBConfig, num_words: int, word_vectors: Tensor | np.ndarray | None) -> None:
        super().__init__()
        self.word_emb = WordEmbedding(num_words, sizes.word_dim, sizes.drop_rate, word_vectors)
        self.char_emb = CharacterEmbedding(sizes.char_size, sizes.char_dim)
        self.linear = Conv1D(sizes.word_dim, sizes.dim)

    def forward(self, word_ids: Tensor, char_ids: Any = None) -> Tensor:
        """Embed: word_ids, as ``WordEmbedding``'s -> (B, L, out_dim). ``char_ids`` is accepted and not read."""
        return self.linear(self.word_emb(word_ids))


class CosinePosition(nn.Module):
    """Sinusoidal positions, added; the table is the buffer ``pe`` (max_pos_len, dim)."""

    pe: Tensor

    def __init__(self, dim: int, max_pos_len: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoid(max_pos_len, dim, torch.empty(0, dtype=torch.float32)))

    def forward(self, x: Tensor) -> Tensor:
        """Add the positions: (..., L, D) -> (..., L, D).

        Raises:
            ValueError: L exceeds the table.
        """
        length, limit = x.shape[-2], self.pe.shape[0]
        if length > limit:
            raise ValueError(
                f"a sequence of {length} is longer than max_pos_len={limit}: raise it in the config, "
                "or pool the features to fewer clips"
            )
        return x + self.pe[:length]


Outputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class EMB(nn.Module):
    """EMB: grounds a sentence in a video by clip scores, boundary logits and ranked proposals.

    Parameters have the names and shapes of the authors' code, so their checkpoints load with ``strict=True``.

    Args:
        configs: an ``EMBConfig``, or any object with its fields as attributes.
        word_vectors: (word_size - 2, word_dim), the words with ids 2 and up; None learns all word vectors.

    Raises:
        ValueError: sizes that do not fit together.
    """

    def __init__(self, configs: Any, word_vectors: Tensor | np.ndarray | None) -> None:
        super().__init__()
        self.configs = configs
        sizes = EMBConfig.of(configs)
        self.embedding_net = Embedding(sizes, num_words=vocabulary_size(sizes, word_vectors), word_vectors=word_vectors)
        self.video_affine = VisualProjection(sizes.video_feature_dim, sizes.dim, sizes.drop_rate)
        self.position = CosinePosition(sizes.dim, sizes.max_pos_len)
        self.encoder = GuidedAttentionEncoder(sizes)
        self.fuser1 = VSLFuser(sizes.dim, sizes.drop_rate)
        self.fuser2 = VSLFuser(sizes.dim, sizes.drop_rate)
        self.highlight_layer = HighLightLayer(sizes.dim)
        self.predictor = ConditionedPredictor(sizes.dim)
        self.ranker = ProposalRanker(sizes.dim, sizes.kernel_size, sizes.num_layers)
        self.apply(init_weights)

    def forward(
        self,
        word_ids: Tensor,
        char_ids: Tensor | None,
        video_features: Tensor,
        v_mask: Tensor,
        q_mask: Tensor,
        moments: Tensor | None = None,
    ) -> Outputs:
        """Ground each query in its video; P = ceil(T / downscale) squared.

        word_ids (B, L) long, or the words' own vectors (B, L, word_dim); video_features (B, T, video_feature_dim);
        v_mask (B, T) and q_mask (B, L), float or bool, real positions first; the rest is ignored, and may be None.

        Returns:
            h_score (B, T), in [0, 1]; start_logits (B, T); end_logits (B, T);
            proposals (B, P, 2) long, first and last clip, inclusive; p_score (B, P), in [0, 1];
            p_mask (B, P), 1 for proposals that exist.

        Raises:
            ValueError: shapes that do not fit, or more clips or words than ``max_pos_len``.
        """
        self._check(word_ids, video_features, v_mask, q_mask)
        v_mask, q_mask = v_mask.to(video_features.dtype), q_mask.to(video_features.dtype)
        clips = self.position(self.video_affine(video_features))
        words = self.position(self.embedding_net(word_ids, char_ids))
        (clips, clip_words), (proposal_features, proposal_words), proposals, p_mask = self.encoder(
            vfeats=clips, qfeats=words, vmask=v_mask, qmask=q_mask
        )
        features = self.fuser1(vfeats=clips, qfeats=clip_words, vmask=v_mask, qmask=q_mask)
        h_score = self.highlight_layer(features, v_mask)
        start_logits, end_logits = self.predictor(features * h_score.unsqueeze(2), v_mask)
        p_score = self.rank(proposal_features, proposal_words, p_mask, q_mask, video_features.shape[1])
        return h_score, start_logits, end_logits, proposals, p_score, p_mask

    def rank(self, features: Tensor, words: Tensor, p_mask: Tensor, q_mask: Tensor, clips: int) -> Tensor:
        """Score the proposals of T = ``clips`` clips: features (B, P, D), words (B, L, D), two masks -> (B, P).

        Only entries that the map can have are fused.
        """
        cells = self.encoder.proposal.cells(clips, features.device)
        fused = self.fuser2(vfeats=features[:, cells], qfeats=words, vmask=p_mask[:, cells], qmask=q_mask)
        return self.ranker(scatter_to_map(fused, cells, p_mask.shape[1]), p_mask)

    def compute_loss(
        self,
        start_logits: Tensor,
        end_logits: Tensor,
        start_labels: Tensor,
        end_labels: Tensor,
        proposals: Tensor,
        pscores: Tensor,
        pmask: Tensor,
        threshold: float = 0.5,
    ) -> Tensor:
        """Compute the location loss: the boundaries may lie between the annotated and the pseudo moment's.

        It is the negative log-probability of starting and of ending anywhere in these elastic ranges.
        start_labels and end_labels are (B,) long clip indices, the rest is as ``forward`` returns it.
        """
        moments = torch.stack([start_labels, end_labels], dim=1)
        pseudo = pseudo_moment(moments, proposals, pscores, pmask, threshold)
        starts, ends = (positions_between(moments[:, i], pseudo[:, i], start_logits.shape[1]) for i in (0, 1))
        return range_loss(start_logits, starts) + range_loss(end_logits, ends)

    def compute_highlight_loss(
        self,
        scores: Tensor,
        labels: Tensor | None,
        mask: Tensor,
        moments: Tensor,
        proposals: Tensor,
        pscores: Tensor,
        pmask: Tensor,
        threshold: float = 0.5,
        extend: float = 0.1,
    ) -> Tensor:
        """Compute the highlight loss: scores and mask (B, T), moments (B, 2) long clip indices.

        ``labels`` is accepted, as upstream's, and not read: they are made from the moments and proposals.
        """
        inside = highlight_labels(mask, moments, proposals, pscores, pmask, threshold, extend)
        return self.highlight_layer.compute_loss(scores, inside, mask)

    def compute_ranking_loss(
        self, moments: Tensor, proposals: Tensor, scores: Tensor, mask: Tensor, min_iou: float, max_iou: float
    ) -> Tensor:
        """Compute the ranking loss: moments (B, 2) and proposals (B, P, 2) in seconds, scores and mask (B, P)."""
        return self.ranker.compute_loss(moments, proposals, scores, mask, min_iou, max_iou)

    def extract_index(
        self, start_logits: Tensor, end_logits: Tensor, proposals: Tensor, pscores: Tensor, pmask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mark the elastic prediction: between the most probable boundaries and the best proposal's, two (B, T) bool.

        For plain first and last clips see ``predictor.extract_index``.
        """
        best = pseudo_moment(None, proposals, pscores, pmask, threshold=0.0)
        start, end = self.predictor.extract_index(start_logits, end_logits)
        clips = start_logits.shape[1]
        return positions_between(start, best[:, 0], clips), positions_between(end, best[:, 1], clips)

    def _check(self, word_ids: Tensor, video_features: Tensor, v_mask: Tensor, q_mask: Tensor) -> None:
        width = self.video_affine.linear.conv1d.in_channels if isinstance(self.video_affine, VisualProjection) else None
        if video_features.dim() != 3 or (width is not None and video_features.shape[-1] != width):
            raise ValueError(
                f"video_features must be (B, T, {width or 'D'}), got {tuple(video_features.shape)}; "
                "the config's video_feature_dim must be the features' width"
            )
        expect_shape("v_mask", v_mask, "B T", video_features.shape[:2])
        expect_shape("q_mask", q_mask, "B L", word_ids.shape[:2])
        if len(word_ids) != len(video_features):
            raise ValueError(
                f"word_ids and video_features must share the batch size, got {len(word_ids)} and {len(video_features)}"
            )


def vocabulary_size(sizes: EMBConfig, word_vectors: Tensor | np.ndarray | None) -> int:
    """Return how many words the embedding holds, checked against the vectors."""
    if word_vectors is None:
        if sizes.word_size is None:
            raise ValueError("word_size must be set where there are no word vectors to count")
        return sizes.word_size
    count, width = word_vectors.shape
    if width != sizes.word_dim:
        raise ValueError(f"word_vectors must be (words, word_dim={sizes.word_dim}), got {(count, width)}")
    if sizes.word_size is not None and sizes.word_size != count + FIRST_WORD:
        raise ValueError(
            f"word_size counts PAD and UNK too: {count} word vectors make {count + FIRST_WORD}, got {sizes.word_size}"
        )
    return count + FIRST_WORD


def init_weights(module: nn.Module) -> None:
    """Initialise by Xavier for linear maps and convolutions, with zero biases; by PyTorch's own for LSTMs."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LSTM):
        module.reset_parameters()
