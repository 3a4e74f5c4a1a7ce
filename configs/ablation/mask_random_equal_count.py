# Ablation, DeiT-S, 100 epochs: as many random tokens as the guided rule hides [ours].
_base_ = "../pretrain/mst_deit-s_8xb64-100e_in1k.py"

model = dict(masking=dict(mode="random_equal_count"))
