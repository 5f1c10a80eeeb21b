#!/usr/bin/env bash
# The multi-label rows on photographs: plain, weighted and focal BCE, class-balanced focal, ASL,
# distribution-balanced, PLM, PLM + class-balanced; ResNet-50 from ImageNet weights at 224 px,
# bfloat16. One table for each set: coco_mlt and voc_mlt, cut from COCO 2017 and VOC 2007.
#
#   DATA_DIR=~/tensorflow_datasets WEIGHTS=resnet50.safetensors OUT=runs/coco benchmarks/reproduce_coco.sh
#
# How to get both is in configs/coco.py. Stops by itself after MINUTES and goes on when it is started
# again; what has finished is skipped. QUICK=1 goes through all of it with a tiny network on tiny
# images, on any machine, without weights.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
DATA_DIR=${DATA_DIR:-$HOME/tensorflow_datasets}
OUT=${OUT:-runs/reproduce_coco}
MINUTES=${MINUTES:-240}
SETS=${SETS:-voc_mlt coco_mlt}
settings=(--seeds="${SEEDS:-3}" --set=data.data_dir="$DATA_DIR" --set=train.tensorboard=false)
if [ -n "${QUICK:-}" ]; then
    settings+=(--set=train.epochs=1 --set=train.batch_size=8 --set=data.validation_size=16
        --set=data.imbalance_kind=exponential --set=data.max_count=0
        --set=data.image_size=16 --set=model.name=small --set=model.dtype=float32)
else
    settings+=(--set=model.pretrained="${WEIGHTS:?is not set; expected a file of ResNet-50 weights}")
fi
mkdir -p "$OUT"
status=0
for set in $SETS; do
    timeout --signal=TERM "${MINUTES}m" "$PYTHON" launch/sweep.py --config=configs/coco.py \
        --sweep="all,$set,resnet50,224" --workdir="$OUT/$set" "${settings[@]}" \
        >"$OUT/$set.log" 2>&1 || status=$?
    [ -e "$OUT/$set/table.md" ] && head -n 20 "$OUT/$set/table.md"
    # 124: the time was over, and what was running has been saved.
    [ "$status" = 124 ] && echo "stopped after $MINUTES minutes; start again to go on" && exit 0
done
[ "$status" = 0 ] || echo "a table failed; see $OUT/*.log" >&2
exit "$status"
