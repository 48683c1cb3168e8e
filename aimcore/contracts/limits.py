"""The largest sizes that fields may have.

Each is far beyond what anyone trains, and small enough that what is checked before a run (building on the meta device,
counting costs, drawing native steps) ends soon and overflows nothing. A plugin's fields should have bounds too:
``at_least(field, value, 1, most=limits.WIDTH)``.
"""

WIDTH = 2**16
"""Channels of a token."""
DEPTH = 512
"""Blocks of a network."""
HEADS = 2**10
"""Attention heads."""
RATIO = 64
"""Hidden width of a feed-forward network, in widths."""
PATCHES = 2**16
"""Patches of an image, and tokens of a text. A mask over them has 4 GiB."""
IMAGE_SIDE = 2**14
"""Pixels."""
PATCH_SIDE = 2**10
"""Pixels."""
CHANNELS = 2**8
"""Values of a pixel."""
CLASSES = 10**7
PARAMETERS = 10**12
"""Of a trunk and objective together: a trillion float32 weights with Adam's state take 16 TB."""
BATCH = 2**20
"""Images of a step, over all processes."""
STEPS = 10**9
"""Of a run."""
NATIVE_STEPS = 10**7
"""Of a run at native resolution, whose steps are all drawn beforehand."""
EPOCHS = 10**6
IMAGES = 10**9
"""Of a data set."""
RATE = 1e3
"""Learning rates."""
DECAY = 1e9
"""Weight decays: the product with a small rate counts."""
PROCESSES = 2**10
"""Threads or processes on one machine."""
