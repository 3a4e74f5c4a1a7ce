"""Names that the command line chooses from. Importing it imports no torch: help must not wait for it."""

TEACHER, STUDENT = "teacher", "student"
# those of formats.FORMATS and formats.TARGETS, in their order
FORMAT_NAMES = (
    *("mst", "ibot", "esvit", "dino", "moby", "mocov3", "dinov2", "dinov3", "mae"),
    *("mmdet", "mmseg"),
    *("huggingface", "detectron2", "swin", "timm"),
)
MMSEG, TIMM, DINO = "mmseg", "timm", "dino"
POSITION_RULES = (MMSEG, TIMM, DINO)  # of resizing a ViT's learned positions: see method/vit_tokens.py
TARGET_NAMES = ("timm", "mmdet", "mmseg", "detectron2", "huggingface", "dinov2", "dinov3")
