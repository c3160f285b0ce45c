"""Weights on disk: others' pickles read safely, every key accounted for, all bytes hashed.

And safetensors written without a second copy in memory.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SAFETENSORS_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
}


class WeightsError(ValueError):
    """Weights that can't be used; the message names the file and the mend."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a `torch.save` file, tensors mapped from disk where its format allows.

    Only tensors and plain containers are read (`weights_only=True`): a pickle that wants to
    run code is refused before any of it runs.

    Raises:
        WeightsError: no such file, truncated, not a checkpoint, or more than tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        # Only the zip form (PyTorch 1.6 and later) can be mapped; the older one is read whole.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        if _wants_code(str(error)):
            raise WeightsError(
                f"{path}: refused, its pickle holds more than tensors and wants to run code "
                f"({_first_line(error)}); get the checkpoint from its authors"
            ) from error
        raise WeightsError(_damaged(path, error)) from error
    # torch raises many types on a file cut short: RuntimeError, EOFError, ValueError, ...
    except Exception as error:
        raise WeightsError(_damaged(path, error)) from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not named tensors")
    return content


def _wants_code(message: str) -> bool:
    return any(word in message for word in ("GLOBAL", "Unsupported class", "disallowed"))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "GLOBAL" in line]
    return (lines or str(error).splitlines() or [type(error).__name__])[0][:160]


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path}: damaged, half downloaded or no PyTorch checkpoint ({path.stat().st_size:,} "
        f"bytes); download it again ({type(error).__name__})"
    )


def write_safetensors(
    path: str | Path,
    layout: Mapping[str, tuple[torch.dtype, torch.Size]],
    make: Callable[[str], Tensor],
) -> None:
    """Write one safetensors file tensor by tensor: `make(name)` gives each when its turn comes.

    safetensors' own `save_file` first gathers every byte, a second copy of the model; here
    the peak is one tensor.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in layout.items():
        begin, end = end, end + shape.numel() * dtype.itemsize
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with Path(path).open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, (dtype, shape) in layout.items():
            tensor = make(name)
            assert (tensor.dtype, tensor.shape) == (dtype, shape), name
            file.write(_raw(tensor))


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of all tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()


def count_keys(
    found: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size], where: str
) -> None:
    """Strict key accounting: every wanted key is there in its shape, and no other.

    `load_state_dict(strict=True)` would come too late: foreign checkpoints are renamed and
    cut into our keys first, and the message is to name the keys of the file.

    Raises:
        WeightsError: naming the missing, the unexpected and the misshapen keys.
    """
    problems = [
        *_list("missing", (k for k in wanted if k not in found)),
        *_list("unexpected", (k for k in found if k not in wanted)),
        *_list(
            "misshapen",
            (
                f"{k} {list(found[k])} for {list(wanted[k])}"
                for k in wanted
                if k in found and found[k] != wanted[k]
            ),
        ),
    ]
    if problems:
        raise WeightsError(f"{where}: {'; '.join(problems)}")


def _list(kind: str, keys: Iterator[str], shown: int = 6) -> list[str]:
    names = list(keys)
    if not names:
        return []
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return [f"{len(names)} {kind} ({', '.join(names[:shown])}{more})"]


def _raw(tensor: Tensor) -> memoryview:
    """The tensor's bytes, little-endian as every machine that PyTorch runs on."""
    flat = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
    return flat.numpy().data
