# MST, Swin-T, on a few thousand photos of your own, one GPU. All [ours]: the values of mst_deit-s_small-data.py, which
# were measured on a small ViT; nothing was measured on a Swin.
_base_ = "./mst_deit-s_small-data.py"

model = dict(
    backbone=dict(name="swin_tiny_patch4_window7_224", drop_path_rate=0.1),  # [code: EsViT]
    masking=dict(mode="attention", num=4, prob=1.0),  # hides 12 of the 49 cells of a view's last map
)
