"""What a student sees, and what its head does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distildire.distill.backbones import Backbone
from distildire.distill.student import Student, block_energy


def test_unknown_backbones_and_inputs() -> None:
    with pytest.raises(ValueError, match="no_such_net"):
        Backbone("no_such_net")
    with pytest.raises(ValueError, match="inputs"):
        Student("resnet18", inputs="sound")  # type: ignore[arg-type]


def test_separate_backbones_see_one_input_each() -> None:
    torch.manual_seed(0)
    student = Student("resnet18", stage=1, fusion="separate").eval()
    x0, eps0, other = torch.randn(3, 1, 3, 32, 32)
    with torch.no_grad():
        image, noise = student.forward_maps(x0, eps0)[-1].chunk(2, dim=1)
        moved = student.forward_maps(x0, other)[-1].chunk(2, dim=1)
        alone = student.noise_backbone(eps0)
    assert torch.equal(image, moved[0])
    assert not torch.allclose(noise, moved[1])
    assert torch.allclose(noise, alone)
    with pytest.raises(ValueError, match="fusion"):
        Student("resnet18", fusion="late")  # type: ignore[arg-type]


@pytest.mark.parametrize("inputs", ["both", "image", "noise"])
def test_student_sees_what_it_is_told(inputs: str) -> None:
    torch.manual_seed(0)
    student = Student("resnet18", inputs=inputs).eval()  # type: ignore[arg-type]
    nn.init.normal_(student.head.weight)
    x0, eps0 = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64)
    logits = student(x0, eps0)
    assert logits.shape == (2,)
    moves = [
        not torch.allclose(logits, student(x0 + 1, eps0)),
        not torch.allclose(logits, student(x0, eps0 + 1)),
    ]
    assert moves == [inputs != "noise", inputs != "image"]


def test_wide_maps_end_in_the_map_of_the_backbone() -> None:
    torch.manual_seed(0)
    student = Student("tf_efficientnet_lite0", stage=3, wide=True).eval()
    x0, eps0 = torch.randn(2, 2, 3, 64, 64)
    with torch.no_grad():
        maps = student.forward_maps(x0, eps0)
        expected = student.backbone(torch.cat([x0, eps0], dim=1))
    assert torch.allclose(maps[-1], expected, atol=1e-5)
    assert sum(m.shape[1] for m in maps) == student.head.in_features
    with pytest.raises(TypeError, match="inverted residuals"):
        Student("resnet18", wide=True)


def test_block_energy_is_that_of_the_cosine_transform() -> None:
    from scipy.fft import dctn

    eps0 = torch.randn(1, 3, 8, 8)
    energy = block_energy(eps0)
    block = dctn(eps0[0, 1, 4:8, 0:4].numpy(), norm="ortho")
    assert energy.shape == (1, 96, 2, 2)
    assert torch.allclose(energy[0, 16:32, 1, 0], torch.tensor(abs(block)).flatten(), atol=1e-5)
