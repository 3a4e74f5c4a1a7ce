# UperNet, MST Swin-T of 300 epochs, Cityscapes 512x1024, 40k iterations, 4 GPUs x 2 crops. Optimiser and
# schedule [code: Swin segmentation], there on ADE20K.
_base_ = ["../_base_/upernet.py", "../_base_/cityscapes.py"]

model = dict(
    backbone=dict(
        type="MSTSwin",
        model="swin_tiny_patch4_window7_224",
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,  # [code: Swin segmentation]
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_swin-t_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(
    type="OptimWrapper",  # float32 [code: Swin segmentation]; --amp: float16 on a GPU
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),  # [code: Swin segmentation]
    paramwise_cfg=dict(
        custom_keys={  # [code: Swin segmentation]
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),  # [code: Swin segmentation]
    dict(type="PolyLR", power=1.0, by_epoch=False, begin=1500, end=40000),  # [code: Swin segmentation], to 0
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
