# Drop-in for mmseg: its own UperNet config with another backbone, for mmseg's own tools/train.py. MMSEG_CONFIGS is the
# folder of mmseg's configs: with the onedl distributions `mmseg::` does not resolve; see docs/drop_in.md.
_base_ = (
    "{{$MMSEG_CONFIGS:../../../mmsegmentation/configs}}/upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py"
)

custom_imports = dict(imports=["mst_transfer"], allow_failed_imports=False)
model = dict(
    pretrained=None,  # mmseg's ResNet weights
    backbone=dict(
        _delete_=True,
        type="MSTSwin",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_swin-t_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
