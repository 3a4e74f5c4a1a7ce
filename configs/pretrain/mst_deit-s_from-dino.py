# MST, DeiT-S/16, started from a DINO, timm or MST backbone and adapted to a few thousand photos of your own, one GPU:
#
#   bash tools/pretrain.sh configs/pretrain/mst_deit-s_from-dino.py --init-from dino_vit-s.safetensors
#
# All [ours]. The learning rate stays that of training from scratch: of those tried at a smaller size it was the best
# (benchmarks/README.md, "Starting from DINO").
_base_ = "./mst_deit-s_small-data.py"

train_cfg = dict(max_epochs=30)  # not measured: a tenth of training from scratch
default_hooks = dict(schedule=dict(warmup_epochs=0.3))
