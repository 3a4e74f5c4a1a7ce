"""Compare the predictions that ``tools/eval_knn.py --save FILE`` wrote with scikit-learn's, image by image.

    python tools/eval_knn.py TRAIN VAL --checkpoint K -k 10 20 100 --save knn.npz
    python benchmarks/knn_sklearn.py knn.npz

Prints one JSON line per k; exit code 1 when an image is classified differently.
"""

from __future__ import annotations

import json
import sys

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

TEMPERATURE = 0.07  # of the votes, eval_knn.py's default


def main(path: str) -> int:
    """Fit, predict, count."""
    saved = np.load(path)
    train, val = (saved[f"{part}_features"].astype(np.float64) for part in ("train", "val"))
    different = 0
    for name in sorted((n for n in saved.files if n.startswith("predicted_")), key=lambda n: (len(n), n)):
        k = int(name.removeprefix("predicted_"))
        classifier = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
        )
        theirs = classifier.fit(train, saved["train_labels"]).predict(val)
        count = int((theirs != saved[name]).sum())
        accuracy = 100 * float((theirs == saved["val_labels"]).mean())
        print(json.dumps({"k": k, "images": len(val), "different": count, "sklearn_accuracy": accuracy}))
        different += count
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
