"""GPUs for which runs are planned: memory, peak rates and interconnect, from their makers' data sheets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from aimcore.contracts.errors import AimcoreError
from aimcore.contracts.messages import did_you_mean
from aimcore.experiment import Precision


class UnknownGPU(AimcoreError):
    """No GPU of this name is known."""


@attrs.frozen(kw_only=True)
class GPU:
    """A GPU in a server of its maker. A gigabyte is 10^9 bytes, as in data sheets."""

    name: str
    memory: int
    """Bytes. Cards report some more, which leaves room for the CUDA context."""
    bf16_flops: float
    """Peak of dense products in bfloat16, in FLOP/s. Data sheets often show twice as much, for sparse matrices."""
    fp32_flops: float
    """Peak in float32, without TF32, in FLOP/s."""
    link: float
    """Bytes per second that a GPU sends to others of its node (NVLink), in one direction."""
    network: float
    """Bytes per second that a GPU sends to other nodes, in one direction, if each GPU has a network card."""
    source: str

    def peak(self, precision: Precision) -> float:
        """Return the peak of products in the precision of a run, in FLOP/s."""
        return self.fp32_flops if precision == "fp32" else self.bf16_flops


_GIGABYTE = 10**9
_TERA = 10**12
GPUS: Mapping[str, GPU] = MappingProxyType(
    {
        gpu.name: gpu
        for gpu in (
            GPU(
                name="a100-40gb",
                memory=40 * _GIGABYTE,
                bf16_flops=312 * _TERA,
                fp32_flops=19.5 * _TERA,
                link=300 * _GIGABYTE,
                network=25 * _GIGABYTE,
                source="NVIDIA A100 data sheet (SXM); DGX A100: 8 x 200 Gb/s",
            ),
            GPU(
                name="a100-80gb",
                memory=80 * _GIGABYTE,
                bf16_flops=312 * _TERA,
                fp32_flops=19.5 * _TERA,
                link=300 * _GIGABYTE,
                network=25 * _GIGABYTE,
                source="NVIDIA A100 data sheet (SXM); DGX A100: 8 x 200 Gb/s",
            ),
            GPU(
                name="h100-80gb",
                memory=80 * _GIGABYTE,
                bf16_flops=989.4 * _TERA,
                fp32_flops=66.9 * _TERA,
                link=450 * _GIGABYTE,
                network=50 * _GIGABYTE,
                source="NVIDIA H100 architecture white paper (SXM5); DGX H100: 8 x 400 Gb/s",
            ),
            GPU(
                name="h200-141gb",
                memory=141 * _GIGABYTE,
                bf16_flops=989.4 * _TERA,
                fp32_flops=66.9 * _TERA,
                link=450 * _GIGABYTE,
                network=50 * _GIGABYTE,
                source="NVIDIA H200 data sheet (SXM); DGX H200: 8 x 400 Gb/s",
            ),
            GPU(
                name="b200-180gb",
                memory=180 * _GIGABYTE,
                bf16_flops=2250 * _TERA,
                fp32_flops=75 * _TERA,
                link=900 * _GIGABYTE,
                network=50 * _GIGABYTE,
                source="NVIDIA DGX B200 data sheet (1,440 GB in 8 GPUs, 8 x 400 Gb/s)",
            ),
        )
    }
)
"""All known GPUs, by name."""


def gpu_named(name: str) -> GPU:
    """Return the GPU called ``name``.

    Raises:
        UnknownGPU: no GPU of this name is known; the message lists the known ones.
    """
    if name not in GPUS:
        hint = did_you_mean(name, list(GPUS))
        raise UnknownGPU(f"unknown GPU {name!r}{hint}; there are {', '.join(GPUS)}")
    return GPUS[name]
