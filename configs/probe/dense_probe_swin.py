# Dense probe of MST Swin-T: frozen features of the four stages, each through a LayerNorm without learned values, one
# linear 1x1 layer. Everything else is dense_probe_vit.py. Protocol ours.
_base_ = "./dense_probe_vit.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="MSTSwin",
        model="swin_tiny_patch4_window7_224",
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.0,  # ours: nothing is trained here
        frozen_stages=4,  # all of it
        init_cfg=dict(
            type="Pretrained",
            checkpoint="work_dirs/mst_swin-t_8xb128-300e_in1k/latest.pth",
            prefix="teacher.backbone.",
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], channels=96 + 192 + 384 + 768),
)
