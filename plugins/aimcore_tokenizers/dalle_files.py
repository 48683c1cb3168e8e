"""The published encoder and decoder of DALL-E: pickled modules, of which only the tensors are read.

Their parameters are ``blocks.input.w``, ``blocks.group_1.block_1.id_path.w``, ``...res_path.conv_1.w``,
``blocks.output.conv.w`` and the same with ``b``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from aimcore import InvalidValue
from aimcore_tokenizers.dvae_networks import Decoder, DVAEShape, Encoder
from aimcore_tokenizers.files import TokenizerFileError, read_file
from aimcore_tokenizers.tensor_pickles import tensors_in_pickle

State = dict[str, Tensor]
_BLOCK = re.compile(r"blocks\.group_(\d+)\.block_(\d+)\.(id_path|res_path\.conv_([1-4]))\.([wb])")
_KINDS = {"w": "weight", "b": "bias"}


def dalle_state(files: Sequence[str]) -> tuple[DVAEShape, State]:
    """Return the sizes and tensors of the published networks.

    Args:
        files: paths or URLs of the encoder and the decoder.

    Raises:
        DataNotFound: a file cannot be read.
        TokenizerFileError: a file is not such a network, or the two do not belong together.
    """
    if len(files) != 2:
        raise TokenizerFileError(f"the files of the encoder and the decoder are needed, got {len(files)} files")
    encoder, decoder = (_renamed(tensors_in_pickle(read_file(path), path), path) for path in files)
    shape = _shape(encoder, decoder, files)
    expected = _expected(shape)
    state = {f"encoder.{name}": tensor for name, tensor in encoder.items() if not name.startswith("output.")}
    state |= {"logits.weight": encoder["output.weight"].flatten(1), "logits.bias": encoder["output.bias"]}
    state |= {f"decoder.{name}": tensor for name, tensor in decoder.items()}
    state["decoder.input.weight"] = state["decoder.input.weight"].flatten(1)
    for name in sorted(expected.keys() | state.keys()):
        given, wanted = (states[name].shape if name in states else None for states in (state, expected))
        if given != wanted:
            path = files[name.startswith("decoder.")]
            raise TokenizerFileError(
                f"{path} does not have DALL-E's structure: {name} is {_list(given)} instead of {_list(wanted)}"
            )
    return shape, state


def _list(shape: torch.Size | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _renamed(tensors: Mapping[str, Tensor], path: str) -> State:
    return {_name(name, path): tensor for name, tensor in tensors.items()}


def _name(name: str, path: str) -> str:
    found = _BLOCK.fullmatch(name)
    if found:
        group, block, kind, number, letter = found.groups()
        part = "skip" if kind == "id_path" else f"convolutions.{int(number) - 1}"
        return f"groups.{int(group) - 1}.{int(block) - 1}.{part}.{_KINDS[letter]}"
    first = {"blocks.input.": "input.", "blocks.output.conv.": "output."}
    for prefix, own in first.items():
        if name.startswith(prefix) and name.removeprefix(prefix) in _KINDS:
            return own + _KINDS[name.removeprefix(prefix)]
    raise TokenizerFileError(f"{path} does not have DALL-E's structure: it has a tensor {name!r}")


def _shape(encoder: State, decoder: State, files: Sequence[str]) -> DVAEShape:
    """Return the sizes, from the shapes of the first and last layers and the numbers of groups and blocks."""
    try:
        places = {tuple(map(int, name.split(".")[1:3])) for name in encoder if name.startswith("groups.")}
        return DVAEShape(
            num_codes=len(encoder["output.bias"]),
            width=len(encoder["input.bias"]),
            groups=1 + max(group for group, _ in places),
            blocks_per_group=1 + max(block for _, block in places),
            decoder_input=len(decoder["input.bias"]),
            num_channels=encoder["input.weight"].shape[1],
        )
    except (KeyError, ValueError, IndexError, TypeError) as cause:  # InvalidValue is a ValueError
        reason = cause if isinstance(cause, InvalidValue) else f"a layer is missing ({cause})"
        raise TokenizerFileError(f"{' and '.join(files)} do not have DALL-E's structure: {reason}") from cause


def _expected(shape: DVAEShape) -> State:
    with torch.device("meta"):
        encoder = Encoder(shape.width, shape.groups, shape.blocks_per_group, shape.num_channels)
        logits, decoder = torch.nn.Linear(encoder.width, shape.num_codes), Decoder(shape)
    parts = {"encoder": encoder, "logits": logits, "decoder": decoder}
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}
