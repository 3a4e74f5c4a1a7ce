# Ablation, DeiT-S, 100 epochs: the guided mask, decoder off [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(decoder=None)
