# UperNet, MST DeiT-S/16 of 300 epochs, Cityscapes 512x1024, 40k iterations, 4 GPUs x 2 crops. Optimiser,
# schedule and pyramid [code: iBOT], there on ADE20K.
_base_ = ["../_base_/upernet.py", "../_base_/cityscapes.py"]

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
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
    # windows as in training, two thirds of a window apart as iBOT's 341 of 512 [code: iBOT]
    test_cfg=dict(mode="slide", crop_size=(512, 1024), stride=(341, 683)),
)
optim_wrapper = dict(
    type="OptimWrapper",  # float32 [code: iBOT]; --amp: float16 on a GPU
    constructor="LayerDecayOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=3e-5, betas=(0.9, 0.999), weight_decay=0.05),  # [code: iBOT]
    paramwise_cfg=dict(layer_decay_rate=0.9, num_layers=12),  # [code: iBOT]; iBOT's paper says 0.65
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),  # [code: iBOT]
    dict(type="PolyLR", power=1.0, by_epoch=False, begin=1500, end=40000),  # [code: iBOT]
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
