# Cascade Mask R-CNN, MST DeiT-S/16 of 300 epochs, 1x schedule, 16 GPUs x 2 images: iBOT's setting [code: iBOT].
_base_ = ["../_base_/cascade_mask_rcnn.py", "../_base_/coco_instance.py"]

model = dict(
    backbone=dict(
        type="MSTVisionTransformer",
        model="vit_small_patch16_224",
        out_indices=(3, 5, 7, 11),  # [code: iBOT]: blocks 4, 6, 8, 12 -> strides 4, 8, 16, 32
        drop_path_rate=0.1,  # [code: iBOT]
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_deit-s_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    neck=dict(in_channels=[384, 384, 384, 384]),
)
optim_wrapper = dict(
    type="AmpOptimWrapper",  # fp16 [code: iBOT]; on a CPU float32
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),  # [code: iBOT]
    paramwise_cfg=dict(layer_decay_rate=0.8, num_layers=12),  # [code: iBOT]: 12 blocks + 2 = 14 groups
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),  # [code: iBOT]
    dict(type="MultiStepLR", milestones=[8, 11], gamma=0.1, begin=0, end=12),  # [code: iBOT], 1x
]
auto_scale_lr = dict(enable=False, base_batch_size=32)  # [code: iBOT]
