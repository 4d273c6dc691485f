"""The tests mirror the packages: a module's test is found by its path, or named here."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "router/api/openai/answer_schemas.py": "router/api/openai/test_chat_completions.py",
    "router/api/openai/call_blocks.py": "router/api/openai/test_call_reader.py",
    "router/api/openai/chat_logprobs.py": "router/api/openai/test_chat_completions.py",
    "router/api/openai/responses/answer_schemas.py": "router/api/openai/responses/test_answer.py",
    "router/api/openai/responses/event_schemas.py": "router/api/openai/responses/test_answer.py",
    "router/api/openai/responses/output_items.py": "router/api/openai/responses/test_output.py",
    "router/http/exceptions.py": "router/http/test_errors.py",
    "router/interfaces.py": "router/engine/test_engine.py",
    "router/launch/exit_codes.py": "faults/test_signals.py",
    "router/launch/refusals.py": "router/launch/test_http_protocol.py",
    "router/launch/serve.py": "test_start_and_stop.py",
    "router/launch/server.py": "faults/test_signals.py",
    "router/launch/stop_signals.py": "faults/test_signals.py",
    "router/options/admission.py": "router/test_settings.py",
    "router/options/batching.py": "router/test_settings.py",
    "router/options/declaration.py": "router/test_settings.py",
    "router/options/launcher.py": "router/launch/test_launcher_options.py",
    "router/options/machines.py": "router/test_settings.py",
    "router/options/model.py": "router/test_settings.py",
    "router/options/network.py": "router/test_settings.py",
    "router/options/operation.py": "router/test_settings.py",
    "router/options/requests.py": "router/test_settings.py",
    "router/request.py": "router/engine/test_engine.py",
    "router/shards/machines.py": "test_machines.py",
    "router/shards/remote_shard.py": "test_machines.py",
    "router/shards/shard_process.py": "faults/test_shards.py",
    "router/shards/signs_of_life.py": "faults/test_shards.py",
    "server/parent.py": "faults/test_shards.py",
    "server/execution/pending_step.py": "server/test_worker.py",
    "server/distributed/rendezvous.py": "server/distributed/test_tensor_parallel.py",
    "server/machines/messages.py": "test_machines.py",
    "server/machines/remote_worker.py": "test_machines.py",
    "server/models/errors.py": "server/models/falcon/test_config.py",
    "server/models/falcon/family.py": "server/models/test_registry.py",
    "server/models/formats/dense.py": "server/models/formats/test_registry.py",
    "server/models/formats/fp8.py": "server/models/formats/test_rounded.py",
    "server/models/formats/int4.py": "server/models/formats/test_rounded.py",
    "server/models/formats/nf4.py": "server/models/formats/test_rounded.py",
    "server/models/formats/quantized.py": "server/models/formats/test_rounded.py",
    "server/models/formats/interface.py": "server/models/formats/test_registry.py",
    "server/models/interface.py": "server/models/test_registry.py",
    "server/models/layers/norm.py": "server/models/falcon/test_model.py",
    "server/models/loading/gguf_layout.py": "server/models/loading/test_gguf_file.py",
    "server/models/loading/safetensors_file.py": "server/models/loading/test_checkpoint.py",
    "server/models/loading/tensor_file.py": "server/models/loading/test_checkpoint.py",
    "server/models/loading/tensor_spec.py": "server/models/falcon/test_tensors.py",
    "server/models/formats/checkpoints/bitsandbytes_reader.py": "server/models/formats/test_quantized_models.py",
    "server/models/formats/checkpoints/compressed_reader.py": "server/models/formats/test_quantized_models.py",
    "server/models/formats/checkpoints/gguf_reader.py": "server/models/formats/test_gguf_models.py",
    "server/models/formats/checkpoints/gguf_types.py": "server/models/formats/checkpoints/test_gguf.py",
    "server/models/formats/checkpoints/input_major_reader.py": "server/models/formats/test_quantized_models.py",
    "server/models/formats/checkpoints/scheme.py": "server/models/formats/checkpoints/test_compressed_scheme.py",
    "server/models/layers/copies.py": "server/models/layers/test_offloaded.py",
    "server/quantization/layouts.py": "server/quantization/test_quantize.py",
    "server/quantization/safetensors_writer.py": "server/quantization/test_quantize.py",
    "server/sampling/sampled.py": "server/sampling/test_sampler.py",
    "kernels/aot/shapes.py": "kernels/aot/test_compile.py",
    "kernels/aot/weights.py": "kernels/aot/test_compile.py",
    "kernels/cpu/native_backend.py": "kernels/test_paged_ops.py",
    "kernels/cpu/torch_attention.py": "kernels/test_paged_ops.py",
    "kernels/cpu/torch_backend.py": "kernels/test_dense_ops.py",
    "kernels/cpu/torch_linear.py": "kernels/test_dense_ops.py",
    "kernels/dense_linear.py": "kernels/gpu/test_backend.py",
    "kernels/gpu/activation.py": "kernels/gpu/test_backend.py",
    "kernels/gpu/attention_tile.py": "kernels/gpu/test_attention.py",
    "kernels/gpu/decode_attention.py": "kernels/gpu/test_attention.py",
    "kernels/gpu/dequantize.py": "kernels/gpu/test_linear.py",
    "kernels/gpu/gemv.py": "kernels/gpu/test_backend.py",
    "kernels/gpu/kv_quant.py": "kernels/gpu/test_attention.py",
    "kernels/gpu/launch.py": "kernels/aot/test_compile.py",
    "kernels/gpu/layernorm.py": "kernels/gpu/test_backend.py",
    "kernels/gpu/packed_weight.py": "kernels/gpu/test_linear.py",
    "kernels/gpu/prefill_attention.py": "kernels/gpu/test_attention.py",
    "kernels/gpu/quantized_gemv.py": "kernels/gpu/test_linear.py",
    "kernels/gpu/rotary_kv.py": "kernels/gpu/test_attention.py",
    "kernels/interface.py": "kernels/test_dense_ops.py",
    "kernels/kv_cache.py": "kernels/test_paged_ops.py",
}
"""Module -> the test that covers it together with others: names without behaviour, and kernels behind one operation."""


def modules(room: str) -> list[str]:
    """The modules of a package by their path under `room`, such as router/engine/mailbox.py."""
    package = ROOT / room / f"peregrine_{room}"
    files = (file for file in package.rglob("*.py") if file.name != "__init__.py")
    return sorted(f"{room}/{file.relative_to(package)}" for file in files)


@pytest.mark.parametrize("room", ["router", "server", "kernels"])
def test_every_module_has_a_test_at_its_path(room: str) -> None:
    """tests/<folders>/test_<module>.py exists, or the table names the test that covers the module."""
    for module in modules(room):
        path = Path(module)
        mirrored = path.with_name(f"test_{path.name}")
        has_own = (ROOT / "tests" / mirrored).exists()
        assert has_own or module in ELSEWHERE, f"{module} has no tests/{mirrored}"
        assert not (has_own and module in ELSEWHERE), f"{module} has a test of its own: leave it out of the table"


def test_the_table_names_tests_and_modules_that_exist() -> None:
    """No entry is left of something that was moved."""
    known = {module for room in ("router", "server", "kernels") for module in modules(room)}
    assert ELSEWHERE.keys() <= known
    assert all((ROOT / "tests" / test).exists() for test in ELSEWHERE.values())
