# Ablation, DeiT-S, 100 epochs: random masking at its own ratio [summary], decoder off [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="random", ratio=0.15), decoder=None)
