"""Assignment of predicted spans to annotated windows at the least cost, as in DETR."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hero_plugin.adapters.detr.config import DETRConfig
from hero_plugin.tensors import at_least_float32

SMALLEST_LENGTH = 1e-12
"""Smallest denominator, so that moments without length have an overlap too."""


def span_cxw_to_xx(spans: Tensor) -> Tensor:
    """Convert (..., 2) of (center, width) to (..., 2) of (start, end)."""
    center, width = spans.unbind(-1)
    return torch.stack([center - 0.5 * width, center + 0.5 * width], dim=-1)


def paired_generalized_temporal_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return the generalized IoU (Rezatofighi et al., 2019) of moments side by side, in float32 at least.

    Intersection over union, less the share of the enclosing moment that neither covers: two (..., 2) of (start, end),
    start <= end, whose leading shapes broadcast -> (...), in [-1, 1].
    """
    start, end = at_least_float32(first).unbind(-1)
    other_start, other_end = at_least_float32(second).unbind(-1)
    intersection = (torch.minimum(end, other_end) - torch.maximum(start, other_start)).clamp(min=0)
    union = (end - start) + (other_end - other_start) - intersection
    enclosing = torch.maximum(end, other_end) - torch.minimum(start, other_start)
    return intersection / union.clamp(min=SMALLEST_LENGTH) - (enclosing - union) / enclosing.clamp(min=SMALLEST_LENGTH)


class Pairs(NamedTuple):
    """Matched predictions and windows of every layer, by index.

    Pair p of layer k is ``predictions[k, sample[k, p], prediction[k, p]]`` and ``windows[sample[k, p], window[k, p]]``.
    """

    sample: Tensor
    """(K, P) long; P is the same in every layer: the smaller of predictions and windows, summed over the batch."""
    prediction: Tensor
    """(K, P) long."""
    window: Tensor
    """(K, P) long."""


class HungarianMatcher(nn.Module):
    """Matcher that gives each window one prediction, so that the sum of costs is least (Carion et al., 2020).

    Called like upstream's, it matches one layer. ``match`` does all layers of a decoder at once and asks the device
    once: the solver runs on the CPU, and every transfer to it waits for the device.

    The costs are -p(foreground), the L1 distance of spans, (center, width) in [0, 1], and -gIoU, which the config's
    ``set_cost_class``, ``set_cost_span`` and ``set_cost_giou`` weigh. Where ``span_loss_type`` is ``"ce"``, spans are
    logits over ``max_v_l`` clips: ``set_cost_span`` weighs -p(first clip) - p(last clip), and there is no gIoU.
    """

    def __init__(self, config: DETRConfig) -> None:
        super().__init__()
        if config.set_cost_class == config.set_cost_span == config.set_cost_giou == 0:
            raise ValueError("cost_class, cost_span and cost_giou are all 0: every assignment would cost the same")
        self.config = config

    @torch.no_grad()
    def forward(self, outputs: dict[str, Any], targets: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """Return for each sample the indices of matched predictions and of their windows, long, on the CPU.

        Outputs of one layer: ``pred_logits`` (B, Q, 2), foreground first, and ``pred_spans`` (B, Q, 2), or
        (B, Q, 2 * max_v_l); targets: ``span_labels``, B times ``{"spans": (windows, 2)}``.
        """
        windows = target_windows(targets, len(outputs["pred_logits"]))
        pairs = self.match(outputs["pred_logits"].unsqueeze(0), outputs["pred_spans"].unsqueeze(0), windows)
        sample, prediction, window = (index[0].cpu() for index in pairs)
        return [(prediction[sample == row], window[sample == row]) for row in range(len(windows))]

    @torch.no_grad()
    def match(self, pred_logits: Tensor, pred_spans: Tensor, windows: list[Tensor]) -> Pairs:
        """Assign the predictions of every layer, with one transfer to the CPU and one back.

        pred_logits (K, B, Q, 2), foreground first, pred_spans (K, B, Q, 2), or (K, B, Q, 2 * max_v_l) of ``"ce"``, and
        B times (windows, 2).
        """
        costs = self.costs(pred_logits, pred_spans, pad_sequence(windows, batch_first=True))
        pairs = assign_layers(costs.cpu(), [len(sample) for sample in windows])
        return Pairs(*pairs.to(pred_logits.device, non_blocking=True))

    def costs(self, pred_logits: Tensor, pred_spans: Tensor, windows: Tensor) -> Tensor:
        """Return the costs: (..., B, Q, 2), (..., B, Q, S) and padded (B, W, 2) -> (..., B, Q, W), float32 at least."""
        config = self.config
        with torch.autocast(pred_logits.device.type, enabled=False):
            pred_logits, pred_spans = at_least_float32(pred_logits), at_least_float32(pred_spans)
            cost_class = -pred_logits.softmax(-1)[..., :1]
            if config.span_loss_type == "ce":
                # (..., B, Q, 2, max_v_l) at the first and last clip of every window: (..., B, Q, 2, W)
                likely = pred_spans.unflatten(-1, (2, config.max_v_l)).softmax(-1)
                bounds = windows.long().transpose(-1, -2).unsqueeze(-3)
                first, last = likely.gather(-1, bounds.expand(*likely.shape[:-1], -1)).unbind(-2)
                return config.set_cost_span * (-first - last) + config.set_cost_class * cost_class
            spans, windows = pred_spans.unsqueeze(-2), windows.to(pred_spans.dtype).unsqueeze(-3)
            cost_span = (spans - windows).abs().sum(-1)
            cost_giou = -paired_generalized_temporal_iou(span_cxw_to_xx(spans), span_cxw_to_xx(windows))
            return (
                config.set_cost_span * cost_span + config.set_cost_giou * cost_giou + config.set_cost_class * cost_class
            )


def assign_layers(costs: Tensor, windows: list[int]) -> Tensor:
    """Find the assignment of least cost of every sample in every layer.

    Costs (K, B, Q, W) on the CPU, ``windows[b]`` columns of sample b real -> (3, K, P) long: sample, prediction and
    window of each pair; samples, and their predictions, ascending.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ImportError('matching needs scipy: pip install "hero-plugin[train]"') from error
    layers = []
    for layer in costs:
        pairs = []
        for sample, (of_sample, real) in enumerate(zip(layer.numpy(), windows, strict=True)):
            of_sample = of_sample[:, :real]
            if not np.isfinite(of_sample).all():
                raise ValueError(
                    "matching costs are not finite: predicted spans or logits, or target spans, hold NaN or infinity "
                    "(a smaller learning rate or gradient clipping helps where training diverged)"
                )
            predictions, matched = linear_sum_assignment(of_sample)
            pairs.append(np.stack([np.full_like(predictions, sample), predictions, matched]))
        layers.append(np.concatenate(pairs, axis=1))
    return torch.from_numpy(np.stack(layers, axis=1).astype(np.int64))


def target_windows(targets: dict[str, Any], batch: int) -> list[Tensor]:
    """Return the windows of each of ``batch`` samples, (windows, 2); (0, 2) where there is none."""
    if "span_labels" not in targets:
        raise KeyError("targets have no span_labels; a criterion for highlights alone has use_matcher=False")
    windows = [target["spans"].reshape(-1, 2) for target in targets["span_labels"]]
    if len(windows) != batch:
        raise ValueError(f"span_labels must hold one entry for each of {batch} samples, got {len(windows)}")
    return windows
