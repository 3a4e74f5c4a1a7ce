# Mask R-CNN, MST Swin-T of 300 epochs, 1x schedule, 8 GPUs x 2 images. Recipe [code: Swin detection, MoBY]:
# the same file for every initialisation. The paper's 42.7 / 38.8 [paper, summary] is after 100 epochs of
# pretraining; for that setting: --init mst-100.
_base_ = ["../_base_/mask_rcnn.py", "../_base_/coco_instance.py"]

model = dict(
    backbone=dict(
        type="MSTSwin",
        model="swin_tiny_patch4_window7_224",
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,  # [code: Swin detection], 1x; 0.2 for 3x
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_swin-t_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    # [code: Swin detection] fp16; on a CPU float32. The loss scale is dynamic unless --cfg-options
    # +optim_wrapper.loss_scale=512.0; bfloat16: +optim_wrapper.dtype=bfloat16; float32: optim_wrapper.type=OptimWrapper
    type="AmpOptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),  # [code: Swin detection]
    paramwise_cfg=dict(
        custom_keys={  # [code: Swin detection]; biases of linear layers are decayed
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),  # [code: Swin detection]
    dict(type="MultiStepLR", milestones=[8, 11], gamma=0.1, begin=0, end=12),  # [code: Swin detection], 1x
]
auto_scale_lr = dict(enable=False, base_batch_size=16)  # [code: Swin detection]
