"""Importing this module loads DeepSpeed and what it imports later: for servers, whose forked processes share it."""

from aimcore.engine.deepspeed_library import load_deepspeed

load_deepspeed()
