"""What a run imports late, for the server of ``killing.py``."""

import timm  # noqa: F401
import torch
from torch.utils import tensorboard  # noqa: F401

import tests.runs.killing  # noqa: F401

torch.set_num_threads(1)
