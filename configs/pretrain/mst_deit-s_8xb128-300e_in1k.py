# MST, DeiT-S/16, 300 epochs on ImageNet: 8 GPUs x 128 images = batch 1024 [code: DINO].
_base_ = "../_base_/mst_pretrain.py"

model = dict(head=dict(norm_last_layer=False))  # [code: DINO], 300 epochs
train_dataloader = dict(batch_size=128)  # [code: DINO]
train_cfg = dict(max_epochs=300)  # [code: DINO]
default_hooks = dict(
    schedule=dict(
        teacher_temperature=(0.04, 0.07),  # [code: DINO], 300 epochs
        teacher_temperature_epochs=30.0,  # [code: DINO]
    )
)
