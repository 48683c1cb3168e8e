"""The largest sizes that fields may have.

Each limit is far above the sizes that are trained today, and low enough that the checks before a run (building on the
meta device, counting costs, drawing native steps) end soon without overflow. A plugin's fields should have bounds
too: ``at_least(field, value, 1, most=limits.WIDTH)``.
"""

WIDTH = 2**16
"""Channels of a token."""
DEPTH = 512
"""Blocks of a network."""
HEADS = 2**10
"""Attention heads."""
RATIO = 64
"""Hidden width of a feed-forward network, relative to the width of a token."""
PATCHES = 2**16
"""Patches of an image, and tokens of a text. An attention mask over them has 4 GiB."""
IMAGE_SIDE = 2**14
"""Side of an image in pixels."""
PATCH_SIDE = 2**10
"""Side of a patch in pixels."""
CHANNELS = 2**8
"""Values of a pixel."""
CLASSES = 10**7
PARAMETERS = 10**12
"""Parameters of a trunk and objective together: a trillion float32 weights with Adam's state take 16 TB."""
BATCH = 2**20
"""Images of a step, over all processes."""
STEPS = 10**9
"""Steps of a run."""
NATIVE_STEPS = 10**7
"""Steps of a run at native resolution; all of them are drawn before the run."""
EPOCHS = 10**6
DRAWS = 10**3
"""Draws of a random subset."""
IMAGES = 10**9
"""Images of a data set."""
RATE = 1e3
"""Learning rates."""
DECAY = 1e9
"""Weight decays. The limit is high because decay is multiplied by the learning rate, which may be small."""
PROCESSES = 2**10
"""Threads or processes on one machine."""
