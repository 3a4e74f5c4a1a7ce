# MST, DeiT-S/16, 300 epochs on ImageNet: 8 GPUs x 128 images = batch 1024 [code: DINO].
_base_ = "../_base_/mst_pretrain.py"

model = dict(head=dict(norm_last_layer=False))  # [code: DINO], 300 epochs
train_dataloader = dict(batch_size=128)
train_cfg = dict(max_epochs=300)
custom_hooks = [
    dict(
        type="ScheduleHook",
        base_lr=5e-4,  # [code: DINO]
        base_batch=256,  # [code: DINO]
        final_lr=1e-6,  # [code: DINO]
        warmup_epochs=10,  # [code: DINO]
        weight_decay=(0.04, 0.4),  # [code: DINO]
        momentum=(0.996, 1.0),  # [code: DINO]
        teacher_temperature=(0.04, 0.07),  # [code: DINO], 300 epochs
        teacher_temperature_epochs=30,  # [code: DINO]
        freeze_last_layer_epochs=1,  # [code: DINO]
    ),
    dict(type="TeacherHook"),
    dict(type="ExactResumeHook"),
]
