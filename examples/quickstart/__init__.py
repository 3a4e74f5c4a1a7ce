"""From images to mAP and mIoU in one command, at toy size."""
