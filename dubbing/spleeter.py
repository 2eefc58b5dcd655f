"""Spleeter's two stems on ONNX Runtime: the voice, and everything else.

Two U-Nets of one shape (Jansson et al., ISMIR 2017; weights by Deezer) look at the magnitudes of 12 seconds of stereo sound and estimate
those of the voice and of the accompaniment. The voice's share of the power is the mask that its spectrum is multiplied with. What is not
voice is the background: their sum is the original, to the last bit that a float holds.

The network was trained at 44.1 kHz and sees up to 11 kHz; what lies above is masked as the octave below, which keeps sibilants whole. Our
sound is 48 kHz: it is resampled on the way in, and the voice on the way out. Everything streams, so memory does not grow with length.

The weights are PyTorch files, pickles, which may run code when loaded. `read_checkpoint` can build numpy arrays and nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from dubbing import stems
from dubbing.errors import WeightsRefused
from dubbing.processors import usable_processors
from dubbing.stems import CHANNELS, Samples

MODEL_RATE = 44_100  # Hz, what the network was trained on
FRAME = 4096  # samples a frame
HOP = 1024  # samples from frame to frame
BINS = 1024  # the network sees 0 to 11 kHz
SEGMENT = 512  # frames the network sees at once: 11.9 s

FADE = 64  # frames (1.5 s) in which one segment's mask passes into the next one's: the network sees silence beyond a segment's ends
STEP = SEGMENT - FADE  # frames from segment to segment

LEAK = 0.2  # slope of LeakyReLU
NORM_EPSILON = 1e-3  # Keras's for batch normalisation
MASK_EPSILON = 1e-10  # power below which there is nothing to share out

Mask = Callable[[np.ndarray], np.ndarray]
"""Magnitudes [2, SEGMENT, BINS] -> the voice's share of each, 0 to 1, of the same shape."""


def separate(source: Path, vocals: Path, background: Path, mask: Mask, progress: Callable[[float], None]) -> None:
    """Write the voice in `source`, and what remains without it (`dubbing.stems.separate`)."""
    stems.separate(source, vocals, background, lambda blocks, channels: voice_in(blocks, channels, mask), progress)


def voice_in(blocks: Iterable[Samples], channels: int, mask: Mask) -> Iterator[Samples]:
    """The voice in 48 kHz sound, block by block: in all exactly as many samples as came in, each at its place."""
    return stems.at_rate(MODEL_RATE, blocks, channels, _Masker(channels, mask))


class _Masker:
    """Sound at the model's rate in, its voice out.

    Frame f covers samples f * HOP to f * HOP + FRAME of the sound with FRAME - HOP zeros before it, so every sample lies in four frames.
    With Hann windows on both ways, the four squared windows add up to 3/2 everywhere.
    """

    _WINDOW = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    _OVERLAP = 1.5

    def __init__(self, channels: int, mask: Mask) -> None:
        self._channels = channels
        self._mask = mask
        self._pushed = self._given = 0
        self._before = FRAME - HOP  # zeros still to leave out of what is given
        self._samples = np.zeros((FRAME - HOP, channels), np.float32)  # not all of it in frames yet
        self._frames = np.zeros((0, channels, FRAME // 2 + 1), np.complex64)  # not masked yet
        self._fading: np.ndarray | None = None  # the last segment's mask where the next one's begins
        self._summed = np.zeros((FRAME - HOP, channels), np.float32)  # voice that later frames add to

    def push(self, samples: Samples) -> Iterator[Samples]:
        self._pushed += len(samples)
        self._analyse(samples)
        while len(self._frames) >= SEGMENT:
            yield self._synthesise(STEP)

    def finish(self) -> Iterator[Samples]:
        """The rest, with silence after the sound."""
        self._analyse(np.zeros((-self._pushed % HOP + FRAME - HOP, self._channels), np.float32))
        left = len(self._frames)
        while left > 0:
            silence = max(0, SEGMENT - len(self._frames))
            self._frames = np.pad(self._frames, ((0, silence), (0, 0), (0, 0)))
            count = left if left <= SEGMENT else STEP
            yield self._synthesise(count)
            left -= count

    def _analyse(self, samples: Samples) -> None:
        self._samples = np.concatenate([self._samples, samples])
        if len(self._samples) < FRAME:
            return
        framed = np.lib.stride_tricks.sliding_window_view(self._samples, FRAME, axis=0)[::HOP]
        self._frames = np.concatenate([self._frames, scipy.fft.rfft(framed * self._WINDOW)])
        self._samples = self._samples[len(framed) * HOP :].copy()

    def _synthesise(self, count: int) -> Samples:
        """Mask the next `count` frames by the segment at hand, and give the samples that are complete with them."""
        mask = self._segment_mask()
        if self._fading is not None:
            rising = (np.arange(1, FADE + 1, dtype=np.float32) / (FADE + 1))[:, None, None]
            mask[:FADE] = rising * mask[:FADE] + (1 - rising) * self._fading
        self._fading = mask[STEP:].copy()
        spectra = self._frames[:count].copy()
        spectra[..., :BINS] *= mask[:count]
        spectra[..., BINS:] *= _above(mask[:count], self._frames[:count])
        voiced = scipy.fft.irfft(spectra) * (self._WINDOW / self._OVERLAP)
        summed = np.zeros((count * HOP + FRAME - HOP, self._channels), np.float32)
        summed[: FRAME - HOP] = self._summed
        for part in range(FRAME // HOP):
            parts = voiced[..., part * HOP : (part + 1) * HOP].transpose(0, 2, 1)
            summed[part * HOP : (part + count) * HOP] += parts.reshape(count * HOP, self._channels)
        self._summed = summed[count * HOP :].copy()
        self._frames = self._frames[count:].copy()
        return self._within_sound(summed[: count * HOP])

    def _segment_mask(self) -> np.ndarray:
        """[SEGMENT, channels, BINS]"""
        magnitudes = np.abs(self._frames[:SEGMENT, :, :BINS]).transpose(1, 0, 2)
        mask = self._mask(np.ascontiguousarray(np.broadcast_to(magnitudes, (CHANNELS, SEGMENT, BINS))))
        if self._channels == 1:
            mask = mask.mean(axis=0, keepdims=True)
        return mask.transpose(1, 0, 2).copy()

    def _within_sound(self, samples: Samples) -> Samples:
        """Of the samples that come next, those that are neither before nor after the sound."""
        before = min(self._before, len(samples))
        self._before -= before
        samples = samples[before:][: self._pushed - self._given]
        self._given += len(samples)
        return samples


def _above(mask: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """[frames, channels, 1]: the voice's share of the power from 5.5 to 11 kHz, for what lies above.

    Sibilants are on both sides of 11 kHz, vowels on neither. The original takes the plain average from 0 Hz on, which leaves more of the
    sibilants (-5.0 instead of -6.3 dB) in the background and takes more of the cymbals (12 instead of 22 dB SI-SDR) out of it.
    """
    power = np.abs(spectra[..., BINS // 2 : BINS]) ** 2
    return (mask[..., BINS // 2 :] * power).sum(axis=2, keepdims=True) / (power.sum(axis=2, keepdims=True) + MASK_EPSILON)


def load(folder: Path, threads: int = 0) -> Mask:
    """The network with the weights in `folder`, ready to run on this many threads; 0 means one for each processor there is.

    Raises:
        WeightsRefused: a file is not a checkpoint of this network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_processors()
    model = build_model(*(read_checkpoint(folder / name) for name in CHECKPOINTS))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def mask(magnitudes: np.ndarray) -> np.ndarray:
        (share,) = session.run(["share"], {"magnitudes": magnitudes[np.newaxis]})
        return np.asarray(share)[0]

    return mask


# The checkpoints

CHECKPOINTS = ("testcheckpoint0.ckpt", "testcheckpoint1.ckpt")  # voice, accompaniment
_PICKLE_BYTES = 100_000_000  # the real ones have 59 MB


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The named float32 arrays in a PyTorch checkpoint: a zip archive with a pickled dictionary of numpy arrays.

    A pickle is a program that may call whatever it can name. Here it can name four things, each a stand-in that only collects values.

    Raises:
        WeightsRefused: it is something else, or names anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
            if archive.getinfo(name).file_size > _PICKLE_BYTES:
                raise WeightsRefused(f"{path.name}: its pickle has more than {_PICKLE_BYTES} bytes")
            with archive.open(name) as file:
                loaded = _ArraysOnly(file).load()
        return {str(key): array.values for key, array in loaded.items()}
    except WeightsRefused as refused:
        raise WeightsRefused(f"{path.name}: {refused}") from None
    except (pickle.UnpicklingError, zipfile.BadZipFile, AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError) as error:
        raise WeightsRefused(f"{path.name}: not a checkpoint of numpy arrays ({error})") from error


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise WeightsRefused(f"the pickle asks for {module}.{name}") from None


class _Dtype:
    def __init__(self, code: str, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: Sequence[Any]) -> None:
        self.code = state[1] + self.code


class _Array:
    values: np.ndarray

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, by_columns, content = state
        if not isinstance(dtype, _Dtype) or dtype.code != "<f4" or not isinstance(content, bytes):
            raise WeightsRefused("the pickle holds an array of other things than float32")
        self.values = np.frombuffer(content, "<f4").reshape(shape, order="F" if by_columns else "C")


def _latin1(text: str, encoding: str) -> bytes:
    """Protocol 2 has no bytes: they are written as text, one character a byte."""
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
}


# The network


def build_model(voice: dict[str, np.ndarray], accompaniment: dict[str, np.ndarray]) -> bytes:
    """An ONNX model: magnitudes [1, 2, SEGMENT, BINS] -> the voice's share of the power, of the same shape.

    Raises:
        WeightsRefused: a checkpoint lacks a tensor.
    """
    from onnx import TensorProto, helper

    graph = _Graph()
    estimates = [_estimate(graph, stem, tensors) for stem, tensors in (("voice", voice), ("accompaniment", accompaniment))]
    voice_power, other_power = (graph.add("Mul", estimate, estimate) for estimate in estimates)
    part = graph.add("Add", voice_power, graph.constant("half", np.array(MASK_EPSILON / len(estimates), np.float32)))
    whole = graph.add("Add", part, graph.add("Add", other_power, "half"))
    graph.add("Div", part, whole, output="share")
    shape = (1, CHANNELS, SEGMENT, BINS)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("magnitudes", "share")]
    made = helper.make_graph(graph.nodes, "spleeter", ends[:1], ends[1:], graph.constants)
    # Format 8 and operators 13 are of 2022: read by every ONNX Runtime since 1.11.
    return bytes(helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString())


def _estimate(graph: _Graph, stem: str, tensors: dict[str, np.ndarray]) -> str:
    """One U-Net, six levels deep. Each level halves both axes; what was there before is joined again on the way up.

    With strides of 2, "same" padding of an even axis is one before and two after.
    """
    halving: dict[str, Any] = {"strides": [2, 2], "pads": [1, 1, 2, 2]}

    def tensor(name: str) -> str:
        if name not in tensors:
            raise WeightsRefused(f"the checkpoint for {stem} has no tensor {name}")
        return graph.constant(f"{stem}.{name}", tensors[name])

    def normalised(inputs: str, layer: str) -> str:
        statistics = [tensor(f"{layer}.{name}") for name in ("weight", "bias", "running_mean", "running_var")]
        return graph.add("BatchNormalization", inputs, *statistics, epsilon=NORM_EPSILON)

    outputs = "magnitudes"
    skipped = []
    for level in range(1, 7):
        outputs = graph.add("Conv", outputs, tensor(f"down{level}_conv.1.weight"), tensor(f"down{level}_conv.1.bias"), **halving)
        if level < 6:
            skipped.append(outputs)
            outputs = graph.add("LeakyRelu", normalised(outputs, f"down{level}_act.0"), alpha=LEAK)
    for level in range(1, 7):
        outputs = graph.add("ConvTranspose", outputs, tensor(f"up{level}.0.weight"), tensor(f"up{level}.0.bias"), **halving)
        outputs = normalised(graph.add("Relu", outputs), f"up{level}.3")
        if skipped:
            outputs = graph.add("Concat", skipped.pop(), outputs, axis=1)
    outputs = graph.add("Conv", outputs, tensor("up7.0.weight"), tensor("up7.0.bias"), dilations=[2, 2], pads=[3, 3, 3, 3])
    return graph.add("Mul", graph.add("Sigmoid", outputs), "magnitudes")


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node; gives the name of its output."""
        from onnx import helper

        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output
