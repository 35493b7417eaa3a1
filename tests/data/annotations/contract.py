"""What every layout of annotations gives: inherit it, and give ``open()``."""

from __future__ import annotations

import numpy as np

from cyborgs.data.annotations.truth import Truth


class TruthContract:
    """``open`` writes a folder with photos ``a``, ``sub/b`` annotated and ``c`` not, and opens it for ``NAMES``."""

    NAMES = ("a.jpg", "sub/b.jpg", "c.jpg")
    has_classes = True

    def open(self, tmp_path) -> Truth:
        raise NotImplementedError

    def test_what_is_missing_is_named(self, tmp_path):
        assert self.open(tmp_path).missing == (2,)

    def test_maps(self, tmp_path):
        truth = self.open(tmp_path)
        for i in (0, 1):
            regions = truth.regions(i)
            assert regions.dtype == np.int32
            assert regions.ndim == 2
            present = np.unique(regions[regions >= 0])
            assert np.array_equal(present, np.arange(len(present)))  # 0..n-1
            assert regions.min() >= -1
            assert np.array_equal(truth.annotators(i)[0], regions)
            if self.has_classes:
                classes = truth.classes(i)
                assert classes.shape == regions.shape
                assert classes.dtype == np.int32
                assert classes.min() >= -1
                if truth.class_names:
                    assert classes.max() < len(truth.class_names)

    def test_each_call_gives_an_array_of_its_own(self, tmp_path):
        truth = self.open(tmp_path)
        first = truth.regions(0)
        first[:] = 99
        assert truth.regions(0).max() < 99

    def test_the_file_that_messages_name(self, tmp_path):
        truth = self.open(tmp_path)
        for i in (0, 1):
            assert truth.place(i).is_file()
