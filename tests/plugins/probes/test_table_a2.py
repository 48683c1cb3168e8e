"""AIMv2's attentive probe is that of arXiv:2411.14402, Table A2, number by number."""

from __future__ import annotations

from aimcore_probes import AttentiveProbe


def test_rates_decays_and_optimiser_are_the_tables() -> None:
    probe = AttentiveProbe.aimv2()
    assert probe.learning_rates == (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3)
    assert (probe.weight_decays, probe.min_lr, probe.betas) == ((0.05, 0.1), 1e-5, (0.9, 0.999))
    assert (probe.gradient_clipping, len(probe.grid)) == (3.0, 14)


def test_batches_and_epochs_are_the_tables_columns() -> None:
    published = AttentiveProbe.published()
    imagenet, others = published["Table A2 (ImageNet)"], published["Table A2"]
    assert (imagenet.batch_size, imagenet.warmup_epochs, imagenet.epochs) == (1024, 5, 100)
    assert (others.batch_size, others.warmup_epochs, others.epochs) == (512, 0, 100)


def test_the_last_layer_is_probed() -> None:
    assert AttentiveProbe.aimv2().layers_of(24) == ()
