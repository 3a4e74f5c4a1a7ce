# Drop-in for mmdet: its own Mask R-CNN config with another backbone, for mmdet's own tools/train.py. Schedule, data and
# optimiser stay mmdet's; docs/drop_in.md says what to change for a good result.
_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["mst_transfer"], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type="MSTSwin",
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_swin-t_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
