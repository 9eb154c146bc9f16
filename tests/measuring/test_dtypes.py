import pytest
import torch
from torch import nn

from mnist_amp.measuring.dtypes import LayerLog, OperationLog, dtypes, kernels_of, used_tensor_cores
from mnist_amp.measuring.profile_records import Layer, Operation
from mnist_amp.measuring.step_parts import HostClock, Recorder


def test_each_type_is_named_once() -> None:
    half, single = torch.zeros(1, dtype=torch.float16), torch.zeros(1)
    assert dtypes(([half, single], {"a": half, "b": 3})) == "float16, float32"
    assert dtypes(None) == ""


def test_operations_are_counted_by_part_and_type() -> None:
    recorder, values = Recorder(HostClock()), torch.ones(2, 2)
    with OperationLog(recorder) as log:
        values + values  # before the step
        recorder.begin()
        recorder.enter("forward")
        for _ in range(2):
            values.t().half()
        recorder.leave()
        torch._foreach_add_([values], 1.0)
        recorder.end()
        values + values
    assert log.operations() == [
        Operation("forward", "_to_copy", inputs="float32", output="float16", count=2),
        Operation("the loop itself", "_foreach_add_", inputs="float32", output="", count=1),
    ]


def test_layers_are_recorded_once_while_they_run() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))
    with LayerLog(model).recording() as log, torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.zeros(1, 2))
        model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))
    assert log.non_finite is None
    assert log.layers == [
        Layer("0", "Linear", weight="float32", input="float32", output="bfloat16"),
        Layer("1.0", "ReLU", weight="", input="bfloat16", output="bfloat16"),
    ]


def test_the_first_layer_that_overflows_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())
    nn.init.constant_(model[1].weight, 1e5)  # type: ignore[arg-type]
    with LayerLog(model).recording() as log, torch.autocast("cpu", dtype=torch.float16):
        model(torch.ones(1, 2))
    assert log.non_finite == "1"


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("volta_fp16_s884gemm_fp16_128x64_ldg8_f2f_nn", True),
        ("turing_fp16_s1688gemm_fp16_128x128_ldg8_f2f_tn", True),
        ("ampere_bf16_s16816gemm_bf16_64x64_sliced1x2_ldg8_f2f_stages_64x6_tn", True),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64_16x6_nn_align4>(Params)", True),
        ("cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8", True),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize96x128x32_stage4_warpsize2x2x1_tensor16x8x16_kernel", True),
        ("sm90_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize64x64x32_warpgroupsize1x1x1_execute_segment_k_off", True),
        ("cutlass3x_sm90_bf16_wgmma_gemm", True),
        ("nvjet_tst_64x8_64x16_1x4_h_bz_TNT", True),
        ("ampere_sgemm_128x64_tn", False),
        ("volta_sgemm_32x128_tn", False),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64_8x5_nn_align1>(Params)", False),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize32x32x8_stage3_warpsize1x2x1_ffma_aligna4_alignc4", False),
        ("void splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(cublasSplitKParams<float>)", False),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda>(int)", False),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4, ADAM_MODE::ORIGINAL>>(int)", False),
        ("Memcpy DtoD (Device -> Device)", False),
    ],
)
def test_tensor_cores_are_recognised_by_the_kernels_name(kernel: str, expected: bool) -> None:
    assert used_tensor_cores(kernel) is expected


@pytest.mark.cuda
def test_kernels() -> None:
    values = torch.ones(512, 512, device="cuda", dtype=torch.float16)
    values @ values
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        values @ values
        values.relu()
        torch.cuda.synchronize()
    kernels = kernels_of(profiler)
    assert sum(kernel.share for kernel in kernels) == pytest.approx(1)
    assert {kernel.tensor_cores for kernel in kernels} == {True, False}
