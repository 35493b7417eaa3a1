"""What a run imports late, for the server of ``killing.py``."""

import timm  # noqa: F401
import torch
from torch.utils import tensorboard  # noqa: F401

import cyborgs.engine.run
import cyborgs.forecast.dry_run
import cyborgs.report.page  # noqa: F401
import tests.engine.killing  # noqa: F401

torch.set_num_threads(1)
