#!/bin/sh
# Builds llama.cpp for the NVIDIA card of this machine and measures the engine on it:
#
#     sh benchmarks/gpu.sh
#
# It needs the CUDA toolkit (nvcc), CMake, a C++ compiler and Python 3.11 to 3.13, and leaves .venv as it is: everything goes to
# .venv-gpu/. Measured are the default model, which it fetches as `make run` does, and resources/models/Llama-3.2-3B*.gguf if there.
# GPU_CMAKE_ARGS: further switches of the build; GPU_SOURCE: a folder with llama.cpp's source instead of a download;
# GPU_PYTHON: a Python that has the packages instead of a new environment.
set -eu
cd "$(dirname "$0")/.."
ROOT=$PWD
HOME_OF_BUILD=$ROOT/.venv-gpu
JOBS=$(nproc)

for program in cmake nvcc; do
    command -v "$program" > /dev/null || {
        echo "ERROR: $program is not on the PATH; install CMake and the CUDA toolkit, or add its bin folder to PATH" >&2
        exit 1
    }
done

mkdir -p "$HOME_OF_BUILD"
if [ -z "${GPU_PYTHON:-}" ]; then
    [ -x "$HOME_OF_BUILD/bin/python" ] || python3 -m venv "$HOME_OF_BUILD"
    GPU_PYTHON=$HOME_OF_BUILD/bin/python
    # The library itself comes from the build below.
    CMAKE_ARGS="-DLLAMA_BUILD=off -DLLAVA_BUILD=off" "$GPU_PYTHON" -m pip install --quiet -c constraints.txt .
fi
if [ -z "${GPU_SOURCE:-}" ]; then
    VERSION=$(sed -n 's/^llama_cpp_python==//p' constraints.txt)
    GPU_SOURCE=$HOME_OF_BUILD/llama_cpp_python-$VERSION/vendor/llama.cpp
    [ -d "$GPU_SOURCE" ] || {
        "$GPU_PYTHON" -m pip download --quiet --no-deps --no-binary :all: --dest "$HOME_OF_BUILD" "llama-cpp-python==$VERSION"
        tar -xzf "$HOME_OF_BUILD/llama_cpp_python-$VERSION.tar.gz" -C "$HOME_OF_BUILD"
    }
fi

echo "Building llama.cpp for the card; some minutes the first time ..."
# shellcheck disable=SC2086  # switches are words
cmake -S "$GPU_SOURCE" -B "$HOME_OF_BUILD/build" -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=on -DGGML_CUDA=on \
    -DLLAMA_BUILD_TESTS=off -DLLAMA_BUILD_EXAMPLES=off -DLLAMA_BUILD_SERVER=off -DLLAMA_BUILD_TOOLS=on -DLLAMA_CURL=off \
    ${GPU_CMAKE_ARGS:-} > "$HOME_OF_BUILD/cmake.log" 2>&1 || { tail -5 "$HOME_OF_BUILD/cmake.log" >&2; exit 1; }
cmake --build "$HOME_OF_BUILD/build" -j "$JOBS" --target llama-bench > "$HOME_OF_BUILD/build.log" 2>&1 || {
    tail -5 "$HOME_OF_BUILD/build.log" >&2
    exit 1
}

export LLAMA_CPP_LIB_PATH="$HOME_OF_BUILD/build/bin"
export LLAMA_BENCH="$HOME_OF_BUILD/build/bin/llama-bench"
export PYTHONPATH="$ROOT/workflow${PYTHONPATH:+:$PYTHONPATH}"
MODEL=resources/models/SmolLM2-135M-Instruct.F16.gguf
[ -e "$MODEL" ] || "$GPU_PYTHON" -m snakemake --cores 1 --quiet all -- "$MODEL"
exec "$GPU_PYTHON" -m benchmarks gpu
