"""Any convolutional network of torchvision or timm, as a function from images to maps by layer name."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from typing import Any, Self, final

import torch
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from cyborgs.errors import UserError
from cyborgs.models.config import BackboneConfig
from cyborgs.models.initial import fit_weights, read_weights
from cyborgs.models.networks import LIBRARIES, build_network, drop_head, last_block, probe, same_modes, stage_ends

logger = logging.getLogger(__name__)
SHOWN = 40
"""Names of layers that an error lists at most."""


@final
class Backbone(nn.Module):
    """A network without its head; ``forward`` gives maps by torchvision's or timm's module names.

    Each set of layers has an extractor of its own (traced by torch.fx at first use) that computes no further than it
    needs. Extractors share the modules of ``trunk``, which alone is registered: a parameter appears once, and those
    of layers after the last requested map get no gradient.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: BackboneConfig, layers: Sequence[str] | None = None) -> None:
        """Build the network; random weights come from torch's global generator.

        Args:
            config: name, weights to start from, normalisation of the colours.
            layers: maps that ``forward`` returns by default; None: ``default_layers``, as far as they exist.

        Raises:
            UserError: unknown network or layer, or a file of weights that does not fit (a ValueError).
            FileNotFoundError: there is no such file of weights.
        """
        super().__init__()
        self.config = config
        library, _, weights = config.init.partition(":")
        # torchvision:DEFAULT and timm:pretrained are the library's own weights, by its own download.
        own = library in LIBRARIES and bool(weights)
        if own and (library == "timm") != config.name.startswith("timm:"):
            raise UserError(f"backbone.init: {config.init!r} has no weights for backbone.name {config.name!r}")
        self.trunk = build_network(config.name, weights if own else False)
        self._maps, finished = probe(self.trunk, config.name)
        self._ends = stage_ends(self.trunk, self._maps)
        self._dropped = drop_head(self.trunk, self._maps, finished)
        self._extractors: dict[tuple[str, ...], nn.Module] = {}
        self.layers = tuple(layers) if layers else tuple(self._ends.values())
        """Names of the maps that ``forward`` returns by default."""
        if not self.layers:
            raise UserError(f"backbone.name: {config.name} has no map at stride 8, 16 or 32; {self._names()}")
        self._check(self.layers)
        mean, std = torch.tensor(config.mean, dtype=torch.float64), torch.tensor(config.std, dtype=torch.float64)
        # Not in the state dict: they belong to the settings, not to the weights.
        self.register_buffer("scale", (1 / (255 * std)).float().view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).float().view(1, 3, 1, 1), persistent=False)
        if config.init and not own:
            state, architecture = read_weights(config.init)
            if architecture not in (None, config.name):
                raise UserError(f"backbone.init: {config.init} holds {architecture}, backbone.name is {config.name}")
            self.load_weights(state, f"backbone.init: {config.init}")

    @property
    def widths(self) -> dict[str, int]:
        """Channels of every map that can be asked for."""
        return {name: m.width for name, m in self._maps.items()}

    @property
    def strides(self) -> dict[str, int]:
        """Pixels a cell of every map that can be asked for (nearest power of two where a network pads oddly)."""
        return {name: m.stride for name, m in self._maps.items()}

    @property
    def head(self) -> tuple[str, ...]:
        """Names of the modules of the library's network that were dropped."""
        return self._dropped

    def default_layers(self) -> tuple[str, ...]:
        """The last maps of strides 8, 16 and 32, which CYBORGS fuses: ResNet's layer2, layer3 and layer4.

        Raises:
            UserError: the network has not all three; the layers must then be named in the recipe.
        """
        if len(self._ends) < 3:
            raise UserError(
                f"{self.config.name} has maps at strides {sorted(self._ends)} alone, not at 8, 16 and 32: "
                f"name the layers in the recipe; {self._names()}"
            )
        return tuple(self._ends.values())

    def check_layers(self, names: Sequence[str]) -> None:
        """Raise UserError unless the network has all these layers; it lists those that there are."""
        self._check(tuple(names))

    def default_clustered(self) -> str:
        """The layer that is clustered: ``layer2.2`` in ResNet-50, elsewhere the last block at stride 8."""
        if 8 not in self._ends:
            raise UserError(f"{self.config.name} has no map at stride 8: name the layer in the recipe; {self._names()}")
        return last_block(self.trunk, self._maps, self._ends[8])

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 of the same memory format: (x / 255 - mean) / std, in one pass."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images are uint8 (B, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        return torch.addcmul(self.shift, images, self.scale)

    def forward(self, images: Tensor, layers: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Maps of normalised images.

        Args:
            images: float (B, 3, H, W), as ``normalise`` gives them.
            layers: names of the maps; nothing after the last of them is computed. None: ``self.layers``.

        Returns:
            Name -> (B, width, about H / stride, about W / stride), in the order that was asked for.
        """
        names = self.layers if layers is None else tuple(layers)
        if names not in self._extractors:
            self._extractors[names] = self._extractor(names)
        maps = self._extractors[names](images)
        return {name: maps[self._alias(name, names)] for name in names}

    def train(self, mode: bool = True) -> Self:
        """Train or eval mode; extractors have a graph for each."""
        super().train(mode)
        for extractor in self._extractors.values():
            extractor.train(mode)
        return self

    def weights(self) -> dict[str, Tensor]:
        """The state dict under the library's names: it loads strictly into the library's network less its head."""
        return {name: value.detach() for name, value in self.trunk.state_dict().items()}

    def load_weights(self, state: dict[str, Tensor], source: str) -> None:
        """Take over weights under the library's names; those of the dropped head are passed over, and said.

        Raises:
            UserError: tensors are missing, too many or of another shape; the message begins with ``source``.
        """
        ignored = fit_weights(self.trunk, state, self._dropped, f"{source}: not the weights of {self.config.name}")
        if ignored:
            logger.warning("%s: passed over the head: %s", source, ", ".join(ignored))

    def forget_extractors(self) -> None:
        """Trace anew at the next use: for whoever has replaced modules of the trunk."""
        self._extractors.clear()

    def remeasure(self) -> None:
        """For whoever has changed strides in the trunk: they are measured, and extractors traced, anew.

        The layers by default stay the same stages.
        """
        self._maps, _ = probe(self.trunk, self.config.name)
        self.forget_extractors()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # Moving to another device may replace tensors that extractors hold beside the trunk's modules.
        self.forget_extractors()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call, no-any-return]

    def __getstate__(self) -> dict[str, Any]:
        # Copies trace their own: a copied extractor need not share its modules with the copied trunk.
        return {**self.__dict__, "_extractors": {}}

    def _alias(self, name: str, names: tuple[str, ...]) -> str:
        """The outermost of ``names`` that returns the same tensor as ``name``.

        torchvision's extractor, asked for a stage and for its last block, gives the stage's node to one of them and
        an EARLIER node (before the ReLU) to the other, without a word. So each tensor is asked for once.
        """
        holders = [n for n in names if n == name or name.startswith(f"{n}.")]
        same = [n for n in holders if self._maps[n].value == self._maps[name].value]
        return min(same, key=lambda n: n.count("."))

    def _extractor(self, names: tuple[str, ...]) -> nn.Module:
        self._check(names)
        nodes = {n: n for n in (self._alias(name, names) for name in names)}
        leaves: list[type[nn.Module]] = [nn.modules.batchnorm._BatchNorm]
        functions: list[Any] = []
        if self.config.name.startswith("timm:"):
            timm_layers = importlib.import_module("timm.layers")
            leaves += timm_layers.get_notrace_modules()
            functions += timm_layers.get_notrace_functions()
        with same_modes(self.trunk):
            try:
                extractor: nn.Module = create_feature_extractor(
                    self.trunk,
                    nodes,
                    tracer_kwargs={"leaf_modules": leaves, "autowrap_functions": functions},
                    suppress_diff_warning=True,  # dropout differs between the modes, and should
                )
            except Exception as error:  # torch.fx raises whatever the traced code raises
                raise UserError(f"{self.config.name}: no extractor for {', '.join(names)}: {error}") from error
        for graph in (extractor.train_graph, extractor.eval_graph):
            self._protect(graph)
        if self.config.compile:
            extractor.compile()  # in place: no name of a module or weight changes
        return extractor

    def _protect(self, graph: Any) -> None:
        """Keep in-place activations from overwriting a map that is returned."""
        (output,) = (node for node in graph.nodes if node.op == "output")
        for node in output.all_input_nodes:
            for user in node.users:
                module = self.trunk.get_submodule(user.target) if user.op == "call_module" else None
                if module is not None and getattr(module, "inplace", False) is True:
                    module.inplace = False  # type: ignore[assignment]

    def _check(self, names: tuple[str, ...]) -> None:
        unknown = [name for name in names if name not in self._maps]
        if unknown or not names:
            wrong = ", ".join(repr(name) for name in unknown) or "nothing"
            raise UserError(f"{self.config.name} has no layer {wrong}; {self._names()}")

    def _names(self) -> str:
        shallow = [n for n in sorted(self._maps, key=lambda n: self._maps[n].order) if n.count(".") < 2]
        more = f", ... ({len(shallow)} in all)" if len(shallow) > SHOWN else ""
        return f"layers (the main ones): {', '.join(shallow[:SHOWN])}{more}"
