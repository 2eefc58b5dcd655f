"""How fast the model speaks on this machine:  python -m tests.speed

All of it is as large as the real one, with random weights: it never comes to an end by itself and is stopped after 10 s of speech.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
from chatterbox_service.model import Chatterbox, load
from chatterbox_service.settings import Settings
from tests.test_model import speak, write_weights

TOKENS = 250
TEXT = "Light of every colour crosses empty space at the same speed, and in glass the blue part is slowed more than the red."


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_weights(Path(name), {})
        began = time.monotonic()
        model = load(Settings(weights=Path(name), max_speech_tokens=TOKENS))
        assert isinstance(model, Chatterbox)
        loading = time.monotonic() - began
        speak(model, TEXT)  # the first use loads what later ones find loaded
        began = time.monotonic()
        speech = len(speak(model, TEXT)) / model.sample_rate
        seconds = time.monotonic() - began
        peak = torch.cuda.max_memory_reserved() / 1e9 if model.device == "cuda" else 0.0
    card = torch.cuda.get_device_name() if model.device == "cuda" else model.device
    print(f"{card}: loaded in {loading:.1f} s; {speech:.1f} s of speech in {seconds:.1f} s; at most {peak:.1f} GB of the GPU's memory")


if __name__ == "__main__":
    main()
