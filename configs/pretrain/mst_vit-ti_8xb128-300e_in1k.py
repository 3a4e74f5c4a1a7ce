# MST, ViT-Ti/16, 300 epochs on ImageNet: DINO's values of its ViT-S; a ViT-Ti was not published with them [ours].
_base_ = "./mst_deit-s_8xb128-300e_in1k.py"

model = dict(backbone=dict(name="vit_tiny_patch16_224", drop_path_rate=0.1))  # [ours]
