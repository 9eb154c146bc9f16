# mnist-amp in a container, with or without CUDA. docs/containers.md has the commands.
#   DEVICE=cpu    torch without CUDA, from PyTorch's own package index, which uv knows by name
#   DEVICE=cuda   torch with CUDA, as the default package index has it for Linux
#   target dev    the tools of CONTRIBUTING.md instead of the command, for .devcontainer/
ARG PYTHON_IMAGE=python:3.13-slim-trixie
FROM ${PYTHON_IMAGE} AS dependencies
ARG DEVICE=cpu
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
# caches for any user: `docker run --user` may give one that has no name and no home
ENV USER=trainer MPLCONFIGDIR=/tmp/matplotlib TORCHINDUCTOR_CACHE_DIR=/tmp/inductor
RUN useradd --create-home --uid 1000 trainer \
    && install --directory --owner trainer /opt/venv /work /home/trainer/.cache /home/trainer/.cache/uv
USER 1000
WORKDIR /opt/mnist-amp
RUN python3 -m venv /opt/venv && pip install --no-cache-dir uv==0.13.9
# only these two files are part of this layer: after a change of the code, torch is not installed again
COPY pyproject.toml constraints.txt ./
RUN --mount=type=cache,target=/home/trainer/.cache/uv,uid=1000 \
    case $DEVICE in \
        cpu) export UV_TORCH_BACKEND=cpu ;; \
        cuda) ;; \
        *) echo "DEVICE is $DEVICE; it must be cpu or cuda." >&2; exit 2 ;; \
    esac; \
    uv pip install --constraint constraints.txt -r pyproject.toml --extra demo --extra export

FROM dependencies AS dev
USER 0
# without versions, because Debian keeps no older ones
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ git make && rm -rf /var/lib/apt/lists/*
USER 1000
RUN --mount=type=cache,target=/home/trainer/.cache/uv,uid=1000 \
    uv pip install --constraint constraints.txt -r pyproject.toml --extra dev

FROM dependencies AS command
COPY . .
RUN uv pip install --no-cache --no-deps .
WORKDIR /work
ENTRYPOINT ["mnist-amp"]
CMD ["--help"]
