# MST, Swin-T, 300 epochs on ImageNet: DINO's values with EsViT's teacher temperature [code: EsViT].
_base_ = "./mst_deit-s_8xb128-300e_in1k.py"

model = dict(backbone=dict(name="swin_tiny_patch4_window7_224", drop_path_rate=0.1))  # [code: EsViT]
