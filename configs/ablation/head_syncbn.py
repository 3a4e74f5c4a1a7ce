# Ablation, DeiT-S, 100 epochs: batch norm in the head over all processes [summary].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(head=dict(norm="syncbn"))
