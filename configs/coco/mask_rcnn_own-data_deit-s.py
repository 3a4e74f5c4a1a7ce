# Mask R-CNN, MST DeiT-S/16, on your own data in COCO's format. Copy this file and edit the two lines; docs/own_data.md
# has a worked example. Everything else is mask_rcnn_mst_deit-s_1x.py's.
_base_ = "./mask_rcnn_mst_deit-s_1x.py"

data_root = "{{$MST_DATA:data}}/own_coco/"  # annotations/instances_{train,val}2017.json, train2017/, val2017/
classes = ("scratch", "dent", "rust")  # the JSON's names in its order, as tools/prepare_data.py prints them

# Both heads and both splits follow; tools/train.py compares them with the JSONs before it trains.
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes)))
)
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=dict(classes=classes)))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=f"{data_root}annotations/instances_val2017.json")
test_evaluator = val_evaluator
