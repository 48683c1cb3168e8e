"""Import of DeepSpeed without its log lines, and cleaning of its global state."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from importlib import import_module
from types import ModuleType

import torch


def load_deepspeed() -> ModuleType:
    """Import DeepSpeed without its log lines, and without a C++ build on CPUs."""
    if "DS_ACCELERATOR" not in os.environ and not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    # DeepSpeed calls functions that torch has renamed; users of aimcore cannot change that.
    warnings.filterwarnings("ignore", message=r".torch\.distributed\.", category=FutureWarning)
    _silence(logging.getLogger("DeepSpeed"))
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    _silence(logger)
    # Otherwise it compiles a shared-memory extension at start-up: a minute, and an error without ninja or g++.
    # The dictionary is not documented; where it is gone, so may be the need for it.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", None)
    if isinstance(compatible, dict):
        compatible["deepspeed_shm_comm"] = False
    _load_muon()
    module: ModuleType = deepspeed
    return module


def _load_muon() -> None:
    """Import DeepSpeed's Muon without compiling it.

    Every engine with ZeRO imports it to compare it with the optimizer, and compiling loads torch's compiler: seconds.
    """
    from deepspeed.runtime import compiler

    # Neither name is documented; where one is gone, so may be the need for it.
    compile_function = getattr(compiler, "compile", None)
    if compile_function is None:
        return
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    except ImportError:
        pass
    finally:
        compiler.compile = compile_function


def _silence(logger: logging.Logger) -> None:
    if logger.level != logging.ERROR:  # setting a level empties the caches of all loggers
        logger.setLevel(logging.ERROR)


def forget_modules() -> None:
    """Empty DeepSpeed's global list and cache of modules, which keep every model ever trained at stage 3 in memory."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    running = getattr(parameter_offload, "FWD_MODULE_STACK", None)
    if isinstance(running, list):
        running.clear()
    # A cached method under a decorator that hides the cache; neither is documented, so either may be gone.
    releasing = getattr(Coordinator, f"_{Coordinator.__name__}__params_to_release", None)
    if inspect.isfunction(releasing):
        cached = inspect.getclosurevars(releasing).nonlocals.get("func", releasing)
        getattr(cached, "cache_clear", lambda: None)()
