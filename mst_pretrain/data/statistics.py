"""What images are normalised by."""

# of values in [0, 1], per channel [code: timm, DINO, torchvision]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
