# Ablation, DeiT-S, 100 epochs: batch norm in the head, per process [summary].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(head=dict(norm="bn"))
