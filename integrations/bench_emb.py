"""How fast a training step of the reference EMB is, beside upstream's, in one run on the same inputs.

Run with ``python -m hero_plugin.integrations.bench_emb --upstream PATH_TO_CLONE``.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from hero_plugin.adapters.emb import EMB, EMBConfig
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.upstream_emb_clone import load_upstream_emb

VOCABULARY, WORD_DIM = 1000, 300
HIGHLIGHT, RANK, THRESHOLD = 5.0, 1.0, 0.6


@dataclass
class BenchConfig:
    """Time a training step of the reference EMB and of upstream's, in turns, on the same random inputs."""

    upstream: Path
    """A clone of Raymond-sci/EMB."""
    batch: int = 16
    clips: int = 128
    words: int = 12
    dim: int = 128
    steps: int = 20
    """Timed steps of each model, taken in turns."""
    warmup: int = 3
    """Steps of each model before the first that counts."""
    drop_rate: float = 0.2
    seed: int = 0
    threads: int | None = None
    """PyTorch's threads; as many as it chooses by default."""
    device: str = "cpu"
    json: Path | None = None
    """Where to write the numbers."""

    def __post_init__(self) -> None:
        for name in ("batch", "clips", "words", "dim", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.json is not None and not self.json.parent.is_dir():
            raise UserError(f"no folder {self.json.parent} to write {self.json.name} into; create it first")


@dataclass(frozen=True)
class Batch:
    """Random inputs with random lengths: inputs as `forward` takes them, and the moments' clips."""

    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    starts: Tensor
    ends: Tensor

    @classmethod
    def random(cls, config: BenchConfig, width: int, device: torch.device) -> Batch:
        draw = torch.Generator().manual_seed(config.seed)
        v_len = torch.randint(-(-config.clips // 3), config.clips + 1, (config.batch,), generator=draw)
        q_len = torch.randint(-(-config.words // 3), config.words + 1, (config.batch,), generator=draw)
        v_len[0], q_len[0] = config.clips, config.words
        v_mask = (torch.arange(config.clips) < v_len.unsqueeze(1)).float()
        q_mask = (torch.arange(config.words) < q_len.unsqueeze(1)).float()
        words = torch.randint(1, VOCABULARY + 2, (config.batch, config.words), generator=draw) * q_mask.long()
        chars = torch.randint(0, 30, (config.batch, config.words, 8), generator=draw)
        video = torch.randn(config.batch, config.clips, width, generator=draw) * v_mask.unsqueeze(-1)
        starts = (torch.rand(config.batch, generator=draw) * v_len).long()
        ends = starts + (torch.rand(config.batch, generator=draw) * (v_len - starts)).long()
        inputs = (words, chars, video, v_mask, q_mask)
        return cls(tuple(x.to(device) for x in inputs), starts.to(device), ends.to(device))


def total_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Forward and the published sum of the three losses; times are counted in clips."""
    h_score, start_logits, end_logits, proposals, p_score, p_mask = model(*batch.inputs)
    labels = (proposals, p_score, p_mask)
    moments = torch.stack([batch.starts, batch.ends], dim=-1)
    past = moments.new_tensor([0, 1])
    location = model.compute_loss(start_logits, end_logits, batch.starts, batch.ends, *labels, threshold=THRESHOLD)
    highlight = model.compute_highlight_loss(h_score, None, batch.inputs[3], moments, *labels, threshold=THRESHOLD)
    ranking = model.compute_ranking_loss(
        (moments + past).float(), (proposals + past).float(), p_score, p_mask, min_iou=0.3, max_iou=0.7
    )
    return location + HIGHLIGHT * highlight + RANK * ranking


def training_step(model: nn.Module, batch: Batch) -> Callable[[], None]:
    """One step as the authors' loop takes it, the optimizer's included; returns when the device is done."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=5e-4)

    def step() -> None:
        loss = total_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if loss.is_cuda:
            torch.cuda.synchronize()

    return step


def interleaved(steps: dict[str, Callable[[], None]], warmup: int, count: int) -> dict[str, list[float]]:
    """Milliseconds of each step, taken in turns so that what else the machine does hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + count):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn >= warmup:
                times[name].append(1000.0 * (time.perf_counter() - began))
    return times


def measure(config: BenchConfig) -> dict[str, Any]:
    """Build both models with the same weights, time them, and say how far their losses are apart.

    Raises:
        FileNotFoundError: ``config.upstream`` is no clone of EMB.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    sizes = EMBConfig(
        word_size=VOCABULARY + 2,
        char_size=30,
        word_dim=WORD_DIM,
        dim=config.dim,
        drop_rate=config.drop_rate,
        max_pos_len=max(config.clips, config.words),
    )
    vectors = torch.randn(VOCABULARY, WORD_DIM)
    models = {
        "upstream": load_upstream_emb(config.upstream).EMB(sizes, vectors.numpy()),
        "reference": EMB(sizes, vectors),
    }
    models["reference"].load_state_dict(models["upstream"].state_dict())
    batch = Batch.random(config, sizes.video_feature_dim, device)
    with torch.no_grad():
        losses = [total_loss(model.to(device).eval(), batch).item() for model in models.values()]
    steps = {name: training_step(model.train(), batch) for name, model in models.items()}
    times = interleaved(steps, config.warmup, config.steps)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "config": {name: str(v) if isinstance(v, Path) else v for name, v in asdict(config).items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "milliseconds": times,
        "median": medians,
        "ratio": medians["upstream"] / medians["reference"],
        "loss_difference": abs(losses[0] - losses[1]),
    }


def table(result: dict[str, Any]) -> Table:
    """The measurement for people."""
    sizes = result["config"]
    shape = f"B={sizes['batch']} T={sizes['clips']} L={sizes['words']} D={sizes['dim']}"
    shown = Table(
        title=f"EMB training step, {shape}, {sizes['device']}, {result['threads']} threads",
        caption=f"times faster: {result['ratio']:.2f}; loss difference: {result['loss_difference']:.1e}",
    )
    for column in ("model", "median ms", "fastest ms", "slowest ms"):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for name, times in result["milliseconds"].items():
        figures = (result["median"][name], min(times), max(times))
        shown.add_row(name, *(f"{figure:.1f}" for figure in figures))
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """``hero-plugin bench emb``: measure, print, and write the numbers where asked."""
    config = tyro.cli(BenchConfig, args=argv, prog="hero-plugin bench emb")
    result = measure(config)
    Console().print(table(result))
    if config.json is not None:
        config.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
