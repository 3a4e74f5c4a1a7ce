# Ablation, DeiT-S, 100 epochs: nothing is hidden, the decoder stays [summary].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="none"))
