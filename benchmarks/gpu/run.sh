#!/usr/bin/env bash
# Everything that needs a GPU, on one card, in under 8 minutes: the tests of tests/gpu, then alignzoo
# beside TRL. It writes one JSON, which names the card: bash benchmarks/gpu/run.sh [FILE]
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [ "${1:-}" ]; then out=$1; else out=benchmarks/results/gpu/$("$python" benchmarks/gpu/card.py).json; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m pytest tests/gpu -m gpu -q --junitxml "$work/tests.xml" -p no:cacheprovider
tests=$?
"$python" benchmarks/gpu/measure.py --tests "$work/tests.xml" --out "$out" ${GPU_ARGUMENTS:-}
exit $((tests + $?))
