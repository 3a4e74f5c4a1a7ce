# Ablation, DeiT-S, 100 epochs: BERT-style random masking at its own ratio, 29 of 196 tokens [summary].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="random", ratio=0.15))
