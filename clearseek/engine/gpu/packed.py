"""A model's weights for the GPU's kernels, by name, in memory that stays where it is when they change."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from clearseek.engine.formats import Format
from clearseek.engine.gpu.products import product
from clearseek.engine.gpu.weights import Weight
from clearseek.engine.mixed_formats import Formats
from clearseek.model.attention import LatentAttention
from clearseek.model.decoder import Decoder
from clearseek.model.experts import Router

_FLOAT32 = Format("float32")


class Packed:
    """Copies of a model's matrices in `form`, of its norms and biases in fp32, and of its embedding.

    Without `copies` what is in its format already stays where it is, in the model. Without the multi-token module
    unless the runner `predicts` with it. A tied embedding lies beside the head, which has a format of its own.
    """

    def __init__(self, model: Decoder, form: Format | Formats, predicts: bool, copies: bool = True) -> None:
        self.form, self.predicts = form, predicts
        self.dtype = torch.float32 if form.name == "float32" else torch.bfloat16
        self.matrices = {
            name: Weight.of(weight, kept, copies) for name, weight, kept in self._matrices(model)
        }
        self.vectors = {name: vector.float().clone() for name, vector in self._vectors(model)}
        self.routers = {name: copy.deepcopy(router).float() for name, router in self._routers(model)}
        embedding = model.embedding.weight.detach()
        self.embedding = embedding.clone() if copies else embedding

    @torch.no_grad()
    def take(self, model: Decoder) -> None:
        """Become the weights of another model of the same shape, in place."""
        for name, weight, _ in self._matrices(model):
            self.matrices[name].take(weight)
        for name, vector in self._vectors(model):
            self.vectors[name].copy_(vector)
        for name, router in self._routers(model):
            self.routers[name].load_state_dict(router.state_dict())
        self.embedding.copy_(model.embedding.weight)

    @property
    def num_bytes(self) -> int:
        """Memory that all of them take."""
        return sum(weight.num_bytes for weight in self.matrices.values()) + sum(
            part.nbytes for part in (*self.vectors.values(), self.embedding)
        )

    def map(self, x: Tensor, name: str) -> Tensor:
        """x [N, in] through a linear map, [N, out] in the dtype of x."""
        mapped = product(x, self.matrices[f"{name}.weight"])
        bias = self.vectors.get(f"{name}.bias")
        return mapped if bias is None else mapped + bias.to(mapped.dtype)

    def _used(self, model: Decoder) -> Iterator[tuple[str, Tensor]]:
        """Its parameters, without those of modules that nobody asks."""
        for name, parameter in model.named_parameters():
            if not name.startswith("mtp.") or (self.predicts and name.startswith("mtp.0.")):
                yield name, parameter.detach()

    def _vectors(self, model: Decoder) -> Iterator[tuple[str, Tensor]]:
        """Norms, sinks and biases."""
        return ((name, part) for name, part in self._used(model) if part.ndim == 1 or name.endswith("bias"))

    def _matrices(self, model: Decoder) -> Iterator[tuple[str, Tensor, Format]]:
        """The others with the formats that they are kept in; a latent's map by its halves."""
        for name, weight in self._used(model):
            if weight.ndim == 1 or name.endswith("bias") or name in ("embedding.weight", "head.weight"):
                continue
            form = self._form(name)
            if not name.endswith("kv_b.weight"):
                yield name, weight, form
                continue
            attention = model.get_submodule(name.removesuffix(".kv_b.weight"))
            assert isinstance(attention, LatentAttention)
            keys, values = attention.absorbed_weights(weight.dtype)
            yield f"{name}.keys", keys.detach().transpose(1, 2), form
            yield f"{name}.values", values.detach(), form
        yield "head", model.head_weight.detach(), self.form.of("head")

    def _form(self, name: str) -> Format:
        """What a part's matrix is kept in: see `part_names`."""
        place = name.removeprefix("mtp.0.").split(".")
        if ".router." in name:
            return _FLOAT32
        if ".shared_gate." in name:
            return Format("float32" if self.dtype == torch.float32 else "bfloat16")
        if "join" in place:
            return self.form.of("mtp.join")
        prefix = "mtp.0" if name.startswith("mtp.") else ".".join(place[:2])
        is_expert = name.endswith(("feed_forward.gate_up", "feed_forward.down"))
        kind = "attention" if "attention" in place else "experts" if is_expert else "feed_forward"
        return self.form.of(f"{prefix}.{kind}")

    def _routers(self, model: Decoder) -> Iterator[tuple[str, Router]]:
        for name, module in model.named_modules():
            if isinstance(module, Router) and (self.predicts or not name.startswith("mtp.")):
                yield name, module
