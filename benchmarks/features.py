"""Features of images on a CPU: AIMv2-L at 224 px, beside other implementations and the machine's peak.

    python benchmarks/features.py [--types float32 bfloat16] [--batches 1 4 16] [--rounds 7] [--json FILE]
    python benchmarks/features.py --profile --types bfloat16 --batches 4   # where the time goes

The others are the form of the authors' code, and the classes of transformers and timm (extras ``transformers``,
``timm``). All have the same random weights, and their outputs are compared with those in float32. Everything is timed
in turn, in one order and then in the other, so that a machine whose speed drifts favours none; numbers are medians over
the rounds, and ratios are medians of the ratios of every round.

The peak is the fastest of these products of matrices, timed in the same rounds: squares of 1024, 2048 and 4096, and the
four shapes of AIMv2-L at the batch size. The share of the peak counts the products of the model and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import operator
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from aimcore import Reading, TrunkModule
from aimcore.contracts.images import images_of
from aimcore.contracts.layouts import FileLayout
from aimcore.registry.plugins import installed
from aimcore_trunks import aimv2

Form = Callable[[Tensor], Tensor]
SIDE, PATCHES = 224, 256
PROFILED = 3
"""Calls per profile."""
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest relative difference from the outputs in float32."""


class AuthorsNorm(nn.Module):
    """RMSNorm in float32, as in the authors' code."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Any leading shape."""
        normal = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
        return normal.type_as(x) * self.weight


class AuthorsBlock(nn.Module):
    """A block with query, key and value in one linear layer."""

    def __init__(self, width: int, hidden: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_1, self.norm_2 = AuthorsNorm(width), AuthorsNorm(width)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width, bias=False), "proj": _linear(width, width)})
        self.mlp = nn.ModuleDict(
            {"fc1": _linear(width, hidden), "fc3": _linear(width, hidden), "fc2": _linear(hidden, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[B, N, D]`` in and out."""
        batch, length, width = x.shape
        qkv = self.attn["qkv"](self.norm_1(x)).reshape(batch, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*qkv.unbind(0))
        x = x + self.attn["proj"](mixed.transpose(1, 2).reshape(batch, length, width))
        normal = self.norm_2(x)
        result: Tensor = x + self.mlp["fc2"](functional.silu(self.mlp["fc1"](normal)) * self.mlp["fc3"](normal))
        return result


class AuthorsForm(nn.Module):
    """AIMv2's encoder with the names and the operations of the authors' code."""

    def __init__(self, width: int, depth: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        patchifier = nn.ModuleDict({"proj": nn.Conv2d(3, width, 14, 14), "norm": AuthorsNorm(width)})
        self.preprocessor = nn.ModuleDict({"patchifier": patchifier})
        self.preprocessor.pos_embed = nn.Parameter(torch.zeros(1, PATCHES, width))
        self.trunk = nn.ModuleDict(
            {
                "blocks": nn.ModuleList(AuthorsBlock(width, hidden, num_heads) for _ in range(depth)),
                "post_trunk_norm": AuthorsNorm(width),
            }
        )

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """``[B, N, D]``."""
        patchifier: Any = self.preprocessor["patchifier"]
        x = patchifier["norm"](patchifier["proj"](pixels_BCHW).flatten(2).transpose(1, 2)) + self.preprocessor.pos_embed
        for block in self.trunk["blocks"]:  # type: ignore[union-attr]
            x = block(x)
        result: Tensor = self.trunk["post_trunk_norm"](x)
        return result


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def others(trunk: TrunkModule) -> dict[str, nn.Module]:
    """The other implementations, with the weights of ``trunk``."""
    import timm
    from transformers import Aimv2VisionConfig, Aimv2VisionModel

    config = Aimv2VisionConfig(rms_norm_eps=1e-5, attn_implementation="sdpa", use_head=False)
    models = {
        "aimv2_authors": AuthorsForm(1024, 24, 8, 2816),
        "aimv2_transformers": Aimv2VisionModel(config),
        "aimv2_timm": timm.create_model("aimv2_large_patch14_224", num_classes=0),
    }
    state = {f"trunk.{name}": value for name, value in trunk.state_dict().items()}
    for layout, model in models.items():
        writer: FileLayout = installed().registry("layouts").get(layout)()
        model.load_state_dict(writer.write(state))
    return {layout.removeprefix("aimv2_"): model.eval() for layout, model in models.items()}


def tokens_of(model: nn.Module) -> Form:
    """Return a function from pixels to tokens after the final norm."""
    if isinstance(model, TrunkModule):
        return lambda pixels_BCHW: model(images_of(pixels_BCHW, model.patch_size), Reading()).tokens_BND
    if hasattr(model, "forward_features"):
        return model.forward_features
    return lambda pixels_BCHW: getattr(found := model(pixels_BCHW), "last_hidden_state", found)


def product_forms(batch: int, dtype: torch.dtype) -> dict[str, tuple[float, Callable[[], object]]]:
    """GFLOP and a function for every product of matrices that the peak is taken from."""
    rows = PATCHES * batch
    own = [(rows, 1024, 3072), (rows, 1024, 1024), (rows, 1024, 2816), (rows, 2816, 1024)]
    forms = {}
    for m, k, n in [*((side,) * 3 for side in (1024, 2048, 4096)), *own]:
        left, right = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
        forms[f"{m} x {k} x {n}"] = (2 * m * k * n / 1e9, lambda left=left, right=right: functional.linear(left, right))
    return forms


def timed(form: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    form()
    return time.perf_counter() - start


def gflop_per_image() -> float:
    """Products of AIMv2-L: linear maps of 24 blocks, attention, and the embedding of patches."""
    linear, attention = 4 * 1024**2 + 3 * 1024 * 2816, 2 * PATCHES * 1024
    return 2 * PATCHES * (24 * (linear + attention) + 588 * 1024) / 1e9


@attrs.frozen
class Row:
    """One implementation at one type and batch size."""

    type: str
    batch: int
    name: str
    milliseconds: float
    share_of_peak: float
    ratio: float
    """Time of this implementation divided by that of aimcore: the median of the ratios of every round."""
    error: float
    """Relative difference of the outputs from those in float32."""


def measure(forms: Mapping[str, Form], batch: int, dtype: torch.dtype, exact: Form, rounds: int) -> list[Row]:
    """Time all implementations and the products in turn."""
    pixels_BCHW = torch.randn(batch, 3, SIDE, SIDE)
    expected_BND = exact(pixels_BCHW)
    pixels_BCHW = pixels_BCHW.to(dtype)
    errors = {name: _difference(form(pixels_BCHW), expected_BND) for name, form in forms.items()}
    assert max(errors.values()) < BOUNDS[dtype], f"outputs differ: {errors}"
    products = product_forms(batch, dtype)
    for _, product in products.values():  # warm-up; the comparison above was that of the forms
        product()
    times: dict[str, list[float]] = {name: [] for name in (*forms, *products)}
    for number in range(rounds):
        for name, form in list(forms.items())[:: -1 if number % 2 else 1]:  # none always follows the same one
            times[name].append(timed(lambda form=form: form(pixels_BCHW)))
        for name, (_, product) in products.items():
            times[name].append(timed(product))
    peak = max(gflop / median(times[name]) for name, (gflop, _) in products.items())
    print(f"\n{dtype}, batch {batch}: peak {peak:.0f} GFLOP/s")
    rows = []
    for name in forms:
        seconds = median(times[name])
        share = batch * gflop_per_image() / seconds / peak
        ratio = median(map(operator.truediv, times[name], times["aimcore"]))
        rows.append(Row(str(dtype)[6:], batch, name, 1e3 * seconds, share, ratio, errors[name]))
        print(
            f"  {name:16} {1e3 * seconds:8.1f} ms  {share:6.1%} of the peak   aimcore is {ratio:.2f} times as fast   "
            f"error {errors[name]:.1e}",
            flush=True,
        )
    return rows


def measure_all(types: Sequence[str], batches: Sequence[int], rounds: int) -> list[Row]:
    """Measure every type and batch size, float32 first, because bfloat16 rounds the weights."""
    trunk = random_trunk()
    models: dict[str, nn.Module] = {"aimcore, plain": trunk, **others(trunk)}
    exact = tokens_of(copy.deepcopy(trunk))
    rows: list[Row] = []
    for name in sorted(types, reverse=True):
        dtype = getattr(torch, name)
        for model in models.values():
            model.to(dtype)
        start = time.perf_counter()
        packed = tokens_of(trunk.for_inference())
        middle = time.perf_counter()
        packed(torch.zeros(1, 3, SIDE, SIDE, dtype=dtype))
        print(f"{name}: weights packed in {middle - start:.2f} s, first image {time.perf_counter() - middle:.2f} s")
        forms = {"aimcore": packed, **{name: tokens_of(model) for name, model in models.items()}}
        for batch in batches:
            rows += measure(forms, batch, dtype, exact, rounds)
    return rows


def random_trunk() -> TrunkModule:
    """AIMv2-L with random weights, and gains that differ from 1."""
    trunk = aimv2("L").build().eval()
    for name, parameter in trunk.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return trunk


def profile(batch: int, dtype: torch.dtype) -> None:
    """Print where the time of the plain module and of the packed one goes: milliseconds of each operation per call."""
    trunk = random_trunk().to(dtype)
    pixels_BCHW = torch.randn(batch, 3, SIDE, SIDE).to(dtype)
    for name, module in (("plain", trunk), ("packed", trunk.for_inference())):
        form = tokens_of(module)
        form(pixels_BCHW)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            for _ in range(PROFILED):
                form(pixels_BCHW)
        print(f"\n{name}, {dtype}, batch {batch}")
        for entry in sorted(found.key_averages(), key=lambda entry: -entry.self_cpu_time_total)[:12]:
            taken = entry.self_cpu_time_total / 1e3 / PROFILED
            print(f"  {entry.key:40} {taken:8.2f} ms  {entry.count // PROFILED:5} calls")


def _difference(found_BND: Tensor, expected_BND: Tensor) -> float:
    return float((found_BND.float() - expected_BND).norm() / expected_BND.norm())


def main() -> None:
    """Print a table per type and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", choices=("bfloat16", "float32"), default=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true", help="print operations of both modules instead")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {gflop_per_image():.1f} GFLOP per image")
    torch.manual_seed(0)
    if arguments.profile:
        with torch.inference_mode():
            for name, batch in itertools.product(arguments.types, arguments.batches):
                profile(batch, getattr(torch, name))
        return
    with torch.inference_mode():
        rows = measure_all(arguments.types, arguments.batches, arguments.rounds)
    print(f"largest resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    if arguments.json:
        arguments.json.write_text(json.dumps([attrs.asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
