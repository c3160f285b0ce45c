"""A noise source: a frozen network with its schedule, and the paper's three questions to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distildire.io.progress import DoneOf
from distildire.noise.schedule import eps0, invert, quantise_dire, sample
from distildire.noise.weights import weights_hash

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class NoiseSource(nn.Module):
    """A frozen noise predictor `network(x_t [B, 3, H, W], t [B] int64) -> eps [B, 3, H, W]`.

    The network may run in half precision; the schedule's maths and every result are float32.
    """

    def __init__(  # noqa: PLR0913
        self,
        network: nn.Module,
        alpha_bar: Tensor,
        *,
        name: str,
        dtype: torch.dtype = torch.float32,
        multiple: int = 1,
        image_size: int | None = None,
        first_step_only: bool = False,
        clip: bool = True,
    ) -> None:
        """Wrap `network`.

        Args:
            network: the predictor; it is moved to `dtype` and frozen.
            alpha_bar: float64 [steps], of the schedule that the network was trained on.
            name: what to call it in tables and records.
            dtype: of the network's weights and activations.
            multiple: both sides of a picture must be divisible by it.
            image_size: side in pixels that the network was trained on, if known.
            first_step_only: the network knows t = 0 alone, so that it has no DIRE.
            clip: derive eps0 from the clipped x0_hat, as the reference does.
        """
        super().__init__()
        self.network = network.to(dtype).eval().requires_grad_(False)
        # No buffer, on the CPU for good: reading a level must not wait for an accelerator, and
        # some have no float64.
        self.alpha_bar = alpha_bar.double().cpu()
        self._first_level = float(self.alpha_bar[0])
        self.name = name
        self.dtype = dtype
        self.multiple = multiple
        self.image_size = image_size
        self.first_step_only = first_step_only
        self.clip = clip
        self._hash: str | None = None

    def predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's eps for x_t [B, 3, H, W] at t [B], float32 [B, 3, H, W].

        In the source's own precision, whatever the training around it runs in: eps0 is a
        difference that is divided by 0.01.
        """
        with torch.autocast(x_t.device.type, enabled=False):
            eps: Tensor = self.network(x_t.to(self.dtype), t)
        return eps.float()

    @torch.no_grad()
    def eps0(self, x0: Tensor) -> Tensor:
        """First-step noise of x0 [B, 3, H, W] in [-1, 1]: float32 [B, 3, H, W], one pass.

        Raises:
            ValueError: x0 of another shape, type or range, or sides the network can't take.
        """
        x0 = self._checked(x0)
        # From x0 itself, so that an exported graph takes any batch size.
        t = x0.detach()[:, 0, 0, 0].mul(0).to(torch.int64)
        return eps0(self.predict(x0, t), x0, self._first_level, clip=self.clip)

    @torch.no_grad()
    def reconstruct(
        self, x0: Tensor, steps: int = 20, progress: DoneOf | None = None
    ) -> tuple[Tensor, Tensor]:
        """DDIM inversion and sampling back: (latent, x0_reconstructed), both [B, 3, H, W].

        `steps` passes each way; `progress` hears of each of the 2 x `steps`.

        Raises:
            ValueError: as `eps0`; `steps` that don't divide the schedule, or take a level of
                no picture (alpha_bar 0); a network that knows the first step alone.
        """
        if self.first_step_only:
            raise ValueError(
                f"the noise source {self.name!r} knows the first diffusion step alone; "
                "reconstruction and DIRE need a whole diffusion model (adm or a folder)"
            )
        x0 = self._checked(x0)
        down = None if progress is None else lambda done, _: progress(done, 2 * steps)
        up = None if progress is None else lambda done, _: progress(steps + done, 2 * steps)
        latent = invert(self.predict, x0, self.alpha_bar, steps, down)
        return latent, sample(self.predict, latent, self.alpha_bar, steps, up)

    def dire(self, x0: Tensor, steps: int = 20, progress: DoneOf | None = None) -> Tensor:
        """DIRE of x0 [B, 3, H, W] in [-1, 1]: [B, 3, H, W] in [0, 1], in steps of 1 / 255.

        A difference of 2 (black against white) is 1. Quantised as the reference's PNGs are.
        """
        _, x0_reconstructed = self.reconstruct(x0, steps, progress)
        return quantise_dire(x0.float(), x0_reconstructed).float() / 255.0

    @property
    def device(self) -> torch.device:
        """Where the network sits; pictures must be there too."""
        return next(self.network.parameters()).device

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights as loaded (in their precision), with the schedule."""
        if self._hash is None:
            # torch.compile puts a prefix before every name; it is the same network.
            state = {
                name.removeprefix("_orig_mod."): tensor
                for name, tensor in self.network.state_dict().items()
            }
            self._hash = weights_hash({**state, "alpha_bar": self.alpha_bar})
        return self._hash

    def _checked(self, x0: Tensor) -> Tensor:
        if x0.ndim != 4 or x0.shape[1] != 3:
            raise ValueError(f"x0 has shape {list(x0.shape)}: give [B, 3, H, W]")
        if not x0.is_floating_point():
            raise ValueError(f"x0 is {x0.dtype}: give floats in [-1, 1] (uint8 / 127.5 - 1)")
        if any(side % self.multiple for side in x0.shape[2:]):
            raise ValueError(
                f"x0 is {x0.shape[2]} x {x0.shape[3]} pixels: both sides must be multiples of "
                f"{self.multiple} for {self.name!r}"
            )
        x0 = x0.float()
        if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
            return x0  # a graph can't branch on values
        low, high = x0.aminmax() if x0.numel() else (x0.new_zeros(()), x0.new_zeros(()))
        # Written so that NaN, which compares false to everything, is caught too.
        if not (float(low) >= -1.001 and float(high) <= 1.001):
            raise ValueError(f"x0 lies in [{low:.3g}, {high:.3g}]: give values in [-1, 1]")
        return x0
