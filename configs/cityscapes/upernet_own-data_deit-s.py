# UperNet, MST DeiT-S/16, on your own images and label maps in two folders. Copy this file and edit the two lines;
# docs/own_data.md has a worked example. Everything else is upernet_mst_deit-s.py's.
_base_ = "./upernet_mst_deit-s.py"

data_root = (
    "{{$MST_DATA:data}}/own_pair/"  # images/{train,val}/NAME.jpg (or .png ...), labels/{train,val}/NAME.png
)
classes = ("background", "thing")  # names of the ids 0, 1, ... of the label maps; 255 is ignored

# Both heads and both splits follow; tools/train.py compares them with the label maps before it trains.
model = dict(decode_head=dict(num_classes=len(classes)), auxiliary_head=dict(num_classes=len(classes)))
train_dataloader = dict(
    dataset=dict(
        type="FolderSegmentation",
        data_root=data_root,
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path="images/train", seg_map_path="labels/train"),
    )
)
val_dataloader = dict(
    dataset=dict(
        type="FolderSegmentation",
        data_root=data_root,
        metainfo=dict(classes=classes),
        data_prefix=dict(img_path="images/val", seg_map_path="labels/val"),
    )
)
test_dataloader = val_dataloader
