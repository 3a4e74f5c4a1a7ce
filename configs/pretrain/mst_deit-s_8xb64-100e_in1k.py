# MST, DeiT-S/16, 100 epochs on ImageNet: 8 GPUs x 64 images = batch 512 [code: DINO].
_base_ = "../_base_/mst_pretrain.py"

train_dataloader = dict(batch_size=64)  # [code: DINO]
train_cfg = dict(max_epochs=100)  # [code: DINO]
