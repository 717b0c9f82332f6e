"""Encoders of frames and of sentences: CLIP and its kin through ``transformers``, and anybody's own function."""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.support.files import checksum
from hero_plugin.integrations.tools.video.decode import Fit
from hero_plugin.integrations.training.distributed import Amp, autocast

EncodedText = tuple[np.ndarray, np.ndarray]
"""A sentence's vectors, one per token (tokens, width), and the one of all of it (pooled width,)."""
FUNCTION = re.compile(r"[\w.]+:\w+")
"""The name of an encoder that is a function: ``package.module:function``."""


class FunctionEncoder:
    """A function ``encode(frames) -> features`` of the user's.

    It takes uint8 (clips, frames, height, width, 3) and returns (clips, dim), or (clips, frames, dim), which is
    averaged, as array or tensor. What it wants may be said as attributes of the function: ``frames_per_second``,
    ``size`` (0: pictures as they are), ``fit``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        module, _, function = name.partition(":")
        if os.getcwd() not in sys.path:  # a script does not see the modules of the folder it is called in
            sys.path.append(os.getcwd())
        try:
            found = importlib.import_module(module)
            self._function: Callable[[np.ndarray], Any] = getattr(found, function)
        except (ImportError, AttributeError) as error:
            raise UserError(f"--encoder {name}: {error}; expected package.module:function") from error
        file = getattr(found, "__file__", None)
        self.source = checksum(Path(file))[:12] if file else None  # features must not outlive a change of it
        self.frames_per_second: float | None = getattr(self._function, "frames_per_second", None)
        self.size = getattr(self._function, "size", 224)
        self.fit: Fit = getattr(self._function, "fit", "crop")

    def encode(self, clips: np.ndarray) -> np.ndarray:
        """Return features (clips, width) float32."""
        with torch.inference_mode():
            found = self._function(clips)
        array = found.detach().float().cpu().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
        if array.ndim == 3 and array.shape[:2] == clips.shape[:2]:
            array = array.mean(axis=1)
        if array.ndim != 2 or len(array) != len(clips):
            count, frames = clips.shape[:2]
            wanted = f"({count}, dim) or ({count}, {frames}, dim)"
            raise UserError(f"--encoder {self.name}: must return {wanted}, got {array.shape}")
        return array.astype(np.float32)

    def identity(self) -> dict[str, Any]:
        """Return what its features depend on, as far as it can be known."""
        return {"name": self.name, "weights": None, "source": self.source, "size": self.size, "fit": self.fit}


class TextEncoder:
    """Text encoder of ``transformers``: that of CLIP or SigLIP, or a model of texts alone, as BERT and MiniLM are.

    A token gets the vectors of ``layers`` side by side, 0 being the words as the first layer gets them; none: the last.
    Raises ``UserError`` where it is not there, incomplete, or of another kind, or has no such layer.
    """

    files = "config.json, the weights and the tokenizer's files"

    def __init__(
        self, name: str, device: torch.device, amp: Amp = "none", download: bool = False, layers: Sequence[int] = ()
    ) -> None:
        if FUNCTION.fullmatch(name):
            raise UserError(f"--queries: {name} encodes frames only; name a model of transformers first")
        try:
            from transformers import AutoModel
            from transformers.utils import logging
        except ImportError as error:
            needs = f'--encoder {name} needs transformers ({error}): pip install "hero-plugin[video]"'
            raise UserError(needs) from error
        logging.disable_progress_bar()
        self.name, self.device, self.amp = str(Path(name).resolve()) if Path(name).is_dir() else name, device, amp
        self._local = {"local_files_only": not download}
        before = logging.get_verbosity()
        logging.set_verbosity_error()  # what is missing is said below, once
        try:
            model, info = AutoModel.from_pretrained(self.name, output_loading_info=True, **self._local)
            self._read_more()
        except Exception as error:  # of a dozen types, by what is missing
            raise UserError(self._unloadable(error, download)) from error
        finally:
            logging.set_verbosity(before)
        missing = sorted([*info["missing_keys"], *(str(each) for each in info["mismatched_keys"])])
        if missing:
            raise UserError(
                f"--encoder {name}: incomplete weights, {len(missing)} tensors are missing: {missing[0]}, ..."
            )
        self._model: Any = model.eval().to(device)
        self.weights = _checksum(model)
        self.layers = tuple(layers)
        last = int(getattr(model.config, "text_config", model.config).num_hidden_layers)
        if wrong := [str(layer) for layer in layers if not 0 <= layer <= last]:
            raise UserError(f"--text-layers: {name} has layers 0 to {last}, and no {', '.join(wrong)}")

    def _read_more(self) -> None:
        """Read what else the encoder needs."""

    def _unloadable(self, error: Exception, download: bool) -> str:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if Path(self.name).is_dir():
            return f"--encoder {self.name}: cannot be loaded ({reason}); the folder needs {self.files}"
        if download:
            return f"--encoder {self.name}: cannot be downloaded or loaded ({reason})"
        return (
            f"--encoder {self.name}: no such folder, and not all of it is in the cache of Hugging Face; "
            "add --download to fetch it, or name a folder"
        )

    @torch.inference_mode()
    def encode_text(self, sentences: Sequence[str], batch_size: int = 64) -> list[EncodedText]:
        """Return the vectors of each sentence: of its tokens with the marks around them, and pooled, as Moment-DETR's.

        A model of texts alone pools by the mean of its tokens. Raises ``UserError`` where the tokenizer cannot be
        loaded, or the model gives no vectors of tokens.
        """
        found: list[EncodedText] = []
        tokenizer, longest = self._tokens
        with_images = hasattr(self._model, "get_text_features")
        encode = self._model.get_text_features if with_images else self._model
        for first in range(0, len(sentences), batch_size):
            some = list(sentences[first : first + batch_size])
            # SigLIP was trained on texts padded to its full length; with CLIP, padding changes nothing.
            padding = "max_length" if with_images else "longest"
            tokens = tokenizer(some, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
            lengths = [len(each) for each in tokenizer(some, truncation=True, max_length=longest)["input_ids"]]
            inputs = {name: tokens[name].to(self.device) for name in ("input_ids", "attention_mask") if name in tokens}
            with autocast(self.amp, self.device):
                output = encode(**inputs, output_hidden_states=bool(self.layers))
            last = getattr(output, "last_hidden_state", None)
            if last is None:
                raise UserError(f"--encoder {self.name}: {type(self._model).__name__} gives no vectors of tokens")
            words = last
            if self.layers:
                states = (*output.hidden_states[:-1], last)  # which is normalized, where the last of them is not
                words = torch.cat([states[layer] for layer in self.layers], dim=-1)
            if with_images:
                pooled = _pooled(output).float()
            else:
                means = (each[:length].mean(0) for each, length in zip(last.float(), lengths, strict=True))
                pooled = torch.stack(list(means))
            pairs = zip(words.float().cpu().numpy(), pooled.cpu().numpy(), lengths, strict=True)
            found += [(each[:length], whole) for each, whole, length in pairs]
        return found

    def encode_words(self, words: Sequence[str]) -> np.ndarray:
        """Return a vector per word (words, width): the word's alone, less that of no word at all.

        What all sentences share, by the marks around them, would make all words alike.
        """
        empty, *found = (pooled for _, pooled in self.encode_text(["", *words]))
        return np.stack(found) - empty

    @cached_property
    def _tokens(self) -> tuple[Any, int]:
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.name, **self._local)
        except Exception as error:  # of many types
            raise UserError(self._unloadable(error, not self._local["local_files_only"])) from error
        text = getattr(self._model.config, "text_config", self._model.config)
        return tokenizer, int(text.max_position_embeddings)


class TransformersEncoder(TextEncoder):
    """CLIP, SigLIP, or another model of ``transformers`` with features of images and of texts."""

    frames_per_second: float | None = None
    files = "config.json, preprocessor_config.json, the weights and the tokenizer's files"

    def __init__(self, name: str, device: torch.device, amp: Amp = "none", download: bool = False) -> None:
        super().__init__(name, device, amp, download)
        if not all(hasattr(self._model, part) for part in ("get_image_features", "get_text_features")):
            raise UserError(
                f"--encoder {name}: {type(self._model).__name__} has no features of images and texts, as CLIP has"
            )
        self.size, self.fit, self._mean, self._std = _preprocessing(self._picture, name)

    def _read_more(self) -> None:
        from transformers.image_processing_base import ImageProcessingMixin

        self._picture = ImageProcessingMixin.get_image_processor_dict(self.name, **self._local)[0]

    @torch.inference_mode()
    def encode(self, clips: np.ndarray) -> np.ndarray:
        """Return features (clips, width) float32: those of the frames, averaged."""
        count, frames = clips.shape[:2]
        pictures = torch.from_numpy(clips.reshape(count * frames, *clips.shape[2:])).to(self.device)
        pixels = (pictures.permute(0, 3, 1, 2).float() / 255 - self._mean.to(self.device)) / self._std.to(self.device)
        with autocast(self.amp, self.device):
            found = _pooled(self._model.get_image_features(pixel_values=pixels))
        return found.float().reshape(count, frames, -1).mean(1).cpu().numpy()

    def identity(self) -> dict[str, Any]:
        """Return what its features depend on."""
        mean, std = ([round(float(each), 6) for each in values.flatten()] for values in (self._mean, self._std))
        pictures = {"size": self.size, "fit": self.fit, "mean": mean, "std": std}
        return {"name": self.name, "weights": self.weights, **pictures}


FrameEncoder = FunctionEncoder | TransformersEncoder
"""What features are made by. ``frames_per_second``: samples that it wants; None: one in the middle of each clip."""


def load_encoder(name: str, device: torch.device, amp: Amp = "none", *, download: bool = False) -> FrameEncoder:
    """Load an encoder of frames: from a folder, by a name on the Hugging Face Hub, or ``package.module:function``.

    Raises ``UserError`` where it cannot be loaded.
    """
    return FunctionEncoder(name) if FUNCTION.fullmatch(name) else TransformersEncoder(name, device, amp, download)


def _pooled(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _preprocessing(picture: Mapping[str, Any], name: str) -> tuple[int, Fit, torch.Tensor, torch.Tensor]:
    """Return the side in pixels, how pictures become squares, and mean and deviation (1, 3, 1, 1) of the colors.

    Raises ``UserError`` where it says no size, or asks for what is not done here, which would give other features.
    """
    crops = bool(picture.get("do_center_crop"))
    size = _side(picture.get("size", 224))
    cropped = _side(picture["crop_size"]) if crops and picture.get("crop_size") is not None else size
    if not isinstance(size, int) or not size > 0 or not isinstance(cropped, int):
        raise UserError(f"--encoder {name}: its preprocessor_config.json says no size of pictures that is a number")
    wrong = [] if size == cropped else [f"resizes pictures to {size} and cuts out {cropped}"]
    if not picture.get("do_rescale", True) or abs(picture.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        wrong.append("takes colors that are not scaled to [0, 1]")
    if wrong:
        raise UserError(
            f"--encoder {name}: by its preprocessor_config.json it {' and '.join(wrong)}, which is not done here; "
            "write a function, --encoder package.module:function"
        )
    plain = not picture.get("do_normalize", True)
    mean, deviation = (
        torch.tensor(usual if plain else picture.get(key) or [0.5] * 3).view(1, 3, 1, 1)
        for key, usual in (("image_mean", [0.0] * 3), ("image_std", [1.0] * 3))
    )
    return size, "crop" if crops else "squash", mean, deviation


def _side(size: Any) -> Any:
    return (size.get("shortest_edge") or size.get("height")) if isinstance(size, Mapping) else size


def _checksum(model: torch.nn.Module) -> str:
    """Return 12 digits that stand for the weights, wherever the files lie and whatever they are called."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:12]
