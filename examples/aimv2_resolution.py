"""Does one encoder for native resolution replace encoders of one size each? AIMv2, arXiv:2411.14402, Table 6.

    python -m aimcore.run examples/aimv2_resolution.py                  # two cores, a few minutes
    python -m aimcore.run examples/aimv2_resolution.py --scale paper --dry-run

AIMv2-L as pre-trained at 224 px, adapted to 448 px, and adapted to native resolution (section 2.4). Each is probed at
both sizes: learned positions are interpolated where the size is not the encoder's own (how the paper did it is not
published). The native one is probed at the images' own aspect ratios too, each resized, up as well as down, to the
largest area that is trained on: the paper's last column has images in their own resolution, so that is another measure
(attentive probes read equally many tokens of every image here). ``small`` has 32 and 64 px for 224 and 448: see
``aimv2_sizes.py``, also for what of the paper's adaptation is an ASSUMPTION. Of the native one nothing is published but
the areas: that it begins with the pre-trained encoder, and has as many patches per step as that, are two more.
"""

from aimv2_sizes import adapted, image_size, pretrained

from aimcore import NativeResolution, Scale, Study
from aimcore_trunks import AIMV2_BATCH_SIZE


def native(scale: Scale) -> NativeResolution:
    """From half to 16 times the usual number of patches; 4 times where emoji are small."""
    if scale == "paper":
        return NativeResolution(patches_per_step=AIMV2_BATCH_SIZE * 256, log2_area=(7, 12), images_multiple_of=64)
    return NativeResolution(patches_per_step=1024 if scale == "small" else 512, log2_area=(3, 6))


def paper(scale: Scale) -> dict[str, dict[str, float]]:
    """Table 6, by the names that the sizes have at this scale."""
    usual, large = (f"attentive@{image_size(scale, factor)}" for factor in (1, 2))
    return {
        "usual": {"attentive": 0.866, large: 0.848},
        "large": {"attentive": 0.879, usual: 0.789},
        "native": {"attentive": 0.861, large: 0.871, "attentive@native": 0.873},
    }


def study(scale: Scale) -> Study:
    """The three rows of Table 6."""
    usual, large = image_size(scale, 1), image_size(scale, 2)
    first = pretrained(scale, "usual", probe_image_sizes=(large,))
    experiments = [
        first,
        adapted(scale, "large", "usual", 2, probe_image_sizes=(usual,)),
        adapted(
            scale,
            "native",
            "usual",
            1,
            native=native(scale),
            probe_image_sizes=(large,),
            probe_native_area=int(2 ** native(scale).log2_area[1]),
        ),
    ]
    source = (
        "arXiv:2411.14402, Table 6; length and rates of the adaptations, and C, are ASSUMPTIONS; @native resizes every "
        "image to one area, the paper does not"
    )
    return Study(name="aimv2-resolution", source=source, experiments=experiments, paper=paper(scale))
