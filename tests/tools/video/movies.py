"""Small MP4s of shapes that appear, move and vanish, sentences about them, and a small CLIP with random weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from hero_plugin.integrations.data import Record, tokenize

WIDTH, HEIGHT, FPS = 64, 48, 8
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 70, 230),
    "yellow": (235, 220, 40),
    "purple": (150, 50, 190),
    "white": (245, 245, 245),
}
SHAPES = ("square", "disc", "bar")
NEW_WORDS = {
    "red": "crimson",
    "green": "emerald",
    "blue": "azure",
    "yellow": "golden",
    "purple": "violet",
    "white": "snowy",
    "square": "box",
    "disc": "ball",
    "bar": "stripe",
    "moves": "travels",
    "appears": "emerges",
    "across": "through",
}
"""What rewordings say, in words that no training sentence has."""
TEMPLATES = ("a {color} {shape} moves across", "the {color} {shape} appears", "there is a {color} {shape}")


@dataclass(frozen=True)
class Event:
    """A shape on the screen from ``start`` to ``end``, in seconds."""

    color: str
    shape: str
    start: float
    end: float


def draw_events(random: np.random.Generator, duration: float, count: int = 3) -> list[Event]:
    """Draw events one after the other, all of different colors."""
    colors = random.choice(list(COLORS), count, replace=False)
    edges = np.sort(random.uniform(0, duration - 5.0 * count, 2 * count)) + np.repeat(np.arange(count), 2) * 5.0
    return [
        Event(
            str(color), str(random.choice(SHAPES)), float(round(edges[2 * i], 1)), float(round(edges[2 * i + 1] + 5, 1))
        )
        for i, color in enumerate(colors)
    ]


def picture(events: list[Event], time: float) -> np.ndarray:
    """Return the frame (height, width, 3) uint8 at a time."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for event in events:
        if not event.start <= time < event.end:
            continue
        share = (time - event.start) / (event.end - event.start)
        x, y = 14 + share * (WIDTH - 28), HEIGHT / 2
        near = {
            "square": (abs(columns - x) < 12) & (abs(rows - y) < 12),
            "disc": (columns - x) ** 2 + (rows - y) ** 2 < 144,
            "bar": (abs(columns - x) < 4) & (abs(rows - y) < 22),
        }
        frame[near[event.shape]] = COLORS[event.color]
    return frame


def write_movie(path: Path, events: list[Event], duration: float, fps: int = FPS) -> None:
    """Write an MP4 of H.264, with B-frames as encoders make them."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(duration * fps)):
            frame = av.VideoFrame.from_ndarray(picture(events, number / fps), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def sentence(random: np.random.Generator, event: Event) -> str:
    """Say what happens in an event."""
    return str(random.choice(TEMPLATES)).format(color=event.color, shape=event.shape)


def reworded(text: str) -> str:
    """Say the same in words that training never had."""
    return " ".join(NEW_WORDS.get(word, word) for word in text.split())


def write_world(folder: Path, videos: dict[str, int], seed: int = 0) -> dict[str, Path]:
    """Write videos and annotations (ActivityNet's form); return the files of annotations by set.

    Args:
        folder: Where to: ``videos/`` and SET.json.
        videos: How many of each set; those of ``test`` are asked in training's words and, as ``unseen``, in others.
        seed: Of all that is drawn.
    """
    random = np.random.default_rng(seed)
    (folder / "videos").mkdir(parents=True)
    sets: dict[str, dict[str, dict]] = {}
    for name, count in videos.items():
        for number in range(count):
            video, duration = f"{name}{number:03}", float(random.integers(24, 33))
            events = draw_events(random, duration)
            write_movie(folder / "videos" / f"{video}.mp4", events, duration)
            said = [sentence(random, event) for event in events]
            times = [[event.start, event.end] for event in events]
            entry = {"duration": duration, "timestamps": times, "sentences": said}
            sets.setdefault(name, {})[video] = entry
            if name == "test":
                sets.setdefault("unseen", {})[video] = {**entry, "sentences": list(map(reworded, said))}
    files = {name: folder / f"{name}.json" for name in sets}
    for name, path in files.items():
        path.write_text(json.dumps(sets[name]))
    return files


def records_of(path: Path) -> list[Record]:
    """Read a set's records."""
    from hero_plugin.integrations.data import read_annotations

    return read_annotations(path)


def all_words() -> list[str]:
    """Return every word that sentences and rewordings are made of."""
    texts = [each.replace("{color}", "").replace("{shape}", "") for each in TEMPLATES]
    words = {word for text in texts for word in tokenize(text)} | {*COLORS, *SHAPES}
    return sorted(words | set(NEW_WORDS.values()))


def save_clip(folder: Path, seed: int = 0, *, width: int = 48, side: int = 32) -> Path:
    """Save a small CLIP with random weights, its preprocessing, and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    names = ["<unk>", "<pad>", "<start>", "<end>"]
    vocabulary = {word: number for number, word in enumerate([*names[:3], *all_words(), names[3]])}
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes["initializer_factor"] = 3.0  # else all that it sees looks nearly alike
    ids = {"bos_token_id": 2, "eos_token_id": vocabulary["<end>"], "pad_token_id": 1}
    text = {**sizes, **ids, "vocab_size": len(vocabulary), "max_position_embeddings": 16}
    vision = {**sizes, "image_size": side, "patch_size": 8}
    before = torch.random.get_rng_state()
    torch.manual_seed(seed)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=width, initializer_factor=3.0)
    ).save_pretrained(folder)
    torch.random.set_rng_state(before)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [(each, vocabulary[each]) for each in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=marks)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "size": {"shortest_edge": side},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder
