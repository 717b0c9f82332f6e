"""The official QVHighlights evaluation of a submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hero_plugin.highlights import clip_scores, highlight_scores
from hero_plugin.retrieval import retrieval_scores


def qvhighlights_scores(
    submission: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Score a submission as the official evaluation does: same keys, same order, same two decimals.

    Args:
        submission: One mapping per query, with ``qid`` and ``pred_relevant_windows`` ([start, end, score] in seconds),
            ``pred_saliency_scores`` (one per clip of 2 s) or both; as in the official script, the first decides.
        annotations: Of the same queries, ``qid`` and ``relevant_windows`` for windows, ``duration``,
            ``relevant_clip_ids`` and ``saliency_scores`` for saliency.

    Returns:
        ``{"brief": {"MR-full-R1@0.5": ..., "HL-min-Fair-mAP": ...}, "HL-min-Fair": ..., "full": ...}``; see
        ``retrieval_scores`` and ``highlight_scores`` for the parts.

    >>> line = {"qid": 1, "pred_relevant_windows": [[0, 9, 0.8], [4, 10, 0.7]]}
    >>> scores = qvhighlights_scores([line], [{"qid": 1, "relevant_windows": [[4, 10]]}])
    >>> scores["brief"]["MR-full-mAP"], scores["brief"]["MR-full-R1@0.5"]
    (55.0, 100.0)

    Raises:
        ValueError: No queries, other queries than annotated, or a query twice; and what the parts raise.
    """
    truth = {row["qid"]: row for row in annotations}
    asked = {line["qid"] for line in submission}
    if not asked or asked != set(truth) or len(asked) != len(submission) or len(truth) != len(annotations):
        raise ValueError(
            f"submission and annotations must have the same qids, each once: got {len(submission)} lines with "
            f"{len(asked)} qids, {len(annotations)} annotations with {len(truth)}, {len(asked & set(truth))} shared"
        )
    rows = [truth[line["qid"]] for line in submission]
    brief: dict[str, float] = {}
    parts: dict[str, dict[str, Any]] = {}
    if "pred_relevant_windows" in submission[0]:
        windows = [line["pred_relevant_windows"] for line in submission]
        retrieval = retrieval_scores(windows, [row["relevant_windows"] for row in rows])
        brief.update(sorted(_brief(retrieval).items()))
        parts.update(retrieval)
    if "pred_saliency_scores" in submission[0]:
        annotated = [clip_scores(row["relevant_clip_ids"], row["saliency_scores"], row["duration"]) for row in rows]
        highlights = highlight_scores([line["pred_saliency_scores"] for line in submission], annotated)
        for name, figures in highlights.items():
            brief.update({f"{name}-{key.removeprefix('HL-')}": value for key, value in figures.items()})
        parts.update(highlights)
    return {"brief": brief, **dict(sorted(parts.items()))}


def _brief(retrieval: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    full = retrieval["full"]
    return {
        **{f"MR-{name}-mAP": figures["MR-mAP"]["average"] for name, figures in retrieval.items()},
        **{f"MR-full-mAP@{overlap}": full["MR-mAP"][overlap] for overlap in ("0.5", "0.75")},
        **{f"MR-full-R1@{overlap}": full["MR-R1"][overlap] for overlap in ("0.5", "0.7")},
    }
