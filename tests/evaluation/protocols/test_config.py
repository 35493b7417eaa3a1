"""Settings that cannot be meant are refused by name."""

from __future__ import annotations

import pytest

from cyborgs.evaluation.settings.photos import (
    KnnSettings,
    LabelFreeSettings,
    LinearClassificationSettings,
    Voc07Settings,
)
from cyborgs.evaluation.settings.pixels import ClusteringSettings, DenseProbeSettings, FcnSettings


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        (Voc07Settings, "costs", (1.0, 0.0)),
        (Voc07Settings, "folds", 1),
        (Voc07Settings, "images", -1),
        (KnnSettings, "neighbours", ()),
        (KnnSettings, "neighbours", (5, 0)),
        (KnnSettings, "temperature", 0.0),
        (KnnSettings, "size", 0),
        (LabelFreeSettings, "images", 1),
        (LabelFreeSettings, "images", 5001),
        (LabelFreeSettings, "size", 0),
        (LinearClassificationSettings, "costs", ()),
        (LinearClassificationSettings, "costs", (float("inf"),)),
        (LinearClassificationSettings, "lr", float("nan")),
        (LinearClassificationSettings, "epochs", 0),
        (DenseProbeSettings, "epochs", 0),
        (DenseProbeSettings, "short_side", -1),
        (ClusteringSettings, "clusters", (27, 300)),
        (ClusteringSettings, "side", 0),
        (ClusteringSettings, "linear_epochs", 0),
        *(
            (settings, field, value)
            for settings in (FcnSettings, DenseProbeSettings, ClusteringSettings)
            for field, value in (
                ("classes", -3),
                ("classes", 256),
                ("ignore", 999),
                ("images", -2),
                ("test_images", -1),
            )
        ),
    ],
)
def test_refused(settings: type, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        settings(**{field: value})
