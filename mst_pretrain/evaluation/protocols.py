"""Figures of the published protocols. Importing it imports no torch: help must not wait for it."""

NEIGHBOURS, TEMPERATURE = (10, 20, 100, 200), 0.07  # [code: DINO]
# ours: DINOv2's style, per 256 images
SWEEP_RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0]
SWEEP_EPOCHS = 10  # ours
DINO_RATE, DINO_EPOCHS = 1e-3, 100  # [code: DINO]
BATCH = 1024  # [code: DINO]
HELD_OUT = 0.1  # ours
