#!/bin/sh
# Ten minutes of a GPU: train a shipped prior further, export it, and leave what to bring back in $OUT. In the root of a checkout:
#   sh benchmarks/gpu_train.sh NAME DATA [--minutes 9]        (NAME: brain-mri, ct, ...; DATA: the folder of its volumes)
#   sh benchmarks/gpu_train.sh --tiny                         (a few steps of a small network on a CPU: whether it works)
set -eu
RECON_CACHE=off PYTHONUNBUFFERED=1 exec "${PYTHON:-python3}" "$(dirname "$0")/gpu_train.py" --out "${OUT:-.}" "$@"
