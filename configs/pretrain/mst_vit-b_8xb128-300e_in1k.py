# MST, ViT-B/16, 300 epochs on ImageNet: DINO's values of its ViT-S, and its last layer's norm for a ViT-B. What else
# DINO's own ViT-B run changed (rates, crops, clipping, 400 epochs) was not at hand [ours].
_base_ = "./mst_deit-s_8xb128-300e_in1k.py"

model = dict(
    backbone=dict(name="vit_base_patch16_224", drop_path_rate=0.1),  # [code: DINO], its default
    head=dict(norm_last_layer=True),  # [code: DINO, main_dino.py: "typically ... True with vit_base"]
)
