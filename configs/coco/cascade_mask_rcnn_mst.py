# Cascade Mask R-CNN, MST Swin-T of 300 epochs, 1x schedule, 8 GPUs x 2 images. Optimiser, schedule and data of
# mask_rcnn_mst.py, which Cascade Mask R-CNN shares [code: Swin detection, iBOT].
_base_ = ["../_base_/cascade_mask_rcnn.py", "../_base_/coco_instance.py"]

model = dict(
    backbone=dict(
        type="MSTSwin",
        model="swin_tiny_patch4_window7_224",
        out_indices=(0, 1, 2, 3),  # [code: iBOT]: all stages
        drop_path_rate=0.2,  # [code: iBOT]
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_swin-t_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    type="AmpOptimWrapper",  # fp16 [code: iBOT]; on a CPU float32
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),  # [code: iBOT]
    paramwise_cfg=dict(
        custom_keys={  # [code: iBOT]; biases of linear layers are decayed
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),  # [code: iBOT]
    dict(type="MultiStepLR", milestones=[8, 11], gamma=0.1, begin=0, end=12),  # [code: iBOT], 1x
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # [code: Swin detection]
