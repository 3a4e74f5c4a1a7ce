"""What a file is that cannot be read as a checkpoint of a ViT or Swin, and how to go on with it."""

from __future__ import annotations

import math
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..runtime.json_text import parse_json
from ..runtime.terminal import first_shown, shown

CUT = "is truncated ({}): copy it again, or use the previous checkpoint of the run."
LONGEST_HEADER = 100_000_000  # bytes of a .safetensors file's, of its own library
CONVERT = "python tools/convert_checkpoint.py FILE NEW.safetensors"
TRUSTED = f"Only where you trust the file, take its weights out, which runs its code: {CONVERT} --trusted"
SAVE = "save the weights in Python with torch.save(model.state_dict(), NEW)"
UNPACK = "Unpack it and give the checkpoint in it."
TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # where torch.save before 1.6 begins
TENSORFLOW = f"Convert it with the library that made it (transformers: from_tf=True), and {SAVE}."
# Where it stands, which bytes, what they say
MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x93NUMPY", f"is one array of NumPy (.npy), not a checkpoint. Load it into its model and {SAVE}."),
    (0, b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, as Keras and TensorFlow write it. {TENSORFLOW}"),
    (0, b"\x08\x01\x12", f"is TensorFlow's SavedModel. {TENSORFLOW}"),
    (4, b"TFL3", f"is a model of TensorFlow Lite. Take the model that it was exported from, and {SAVE}."),
    (0, b"GGUF", f"is a GGUF file of llama.cpp. Take the model that it was exported from, and {SAVE}."),
    (0, b"\x1f\x8b", f"is compressed with gzip. {UNPACK}"),
    (0, b"BZh", f"is compressed with bzip2. {UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"is compressed with xz. {UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"is compressed with zstd. {UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"is a 7z archive. {UNPACK}"),
    (0, b"Rar!", f"is a rar archive. {UNPACK}"),
    (0, b"\xff\xd8\xff", "is a JPEG image, not a checkpoint. Give the file of the weights."),
    (0, b"\x89PNG", "is a PNG image, not a checkpoint. Give the file of the weights."),
    (0, b"%PDF", "is a PDF, not a checkpoint. Give the file of the weights."),
)
# Names of weights, and the network that has them although some names are a ViT's or Swin's
NETWORKS: tuple[tuple[str, str], ...] = (
    (
        r"(^|[._])lora_",
        "adapters of LoRA, which hold differences to another network. Merge them first, with peft "
        "model.merge_and_unload(), and save that model's state_dict",
    ),
    (
        r"\.(qweight|qzeros|SCB|absmax|_packed_params)(\.|$)|weight\.(absmax|quant_state)",
        "quantized weights. Give the file that it was made from",
    ),
    (r"attn.*\.(cpb_mlp|logit_scale|continuous_position_bias_mlp)", "a Swin V2, another network than a Swin"),
    (
        r"^(?!.*(layers|stages)\.\d+\.blocks)(.*\.)?(blocks|layer)\.\d+\..*(q_bias|relative_position_bias_table)",
        "a BEIT or EVA, another network than a ViT",
    ),
    (r"(^|\.)flat_param$|_flat_param", "the flattened weights of FSDP. Save with a full state_dict there"),
    (
        r"(exp_avg|momentum_buffer)$",
        "the state of an optimizer, without weights. Give the checkpoint beside it",
    ),
    (r"resblocks\.\d+\.|vision_model\.encoder", "a CLIP, another network than a ViT"),
    (r"layer1\.0\.(conv|bn)1\.", "a ResNet"),
    (r"stages\.\d+\.(blocks\.)?\d+\.(conv_dw|dwconv|depthwise_conv)", "a ConvNeXt"),
)
# Names of a ViT's weights that a plain one does not have, and what they are
PARTS: tuple[tuple[str, str], ...] = (
    (r"(^|\.)reg(ister)?_tokens?$", "register tokens"),
    (r"\.(ls\d\.gamma|gamma_\d|layer_scale\d\.lambda1)$", "LayerScale"),
    (r"\.mlp\.(w12|w[123]|fc1_g|fc1_x|weights_(in|out))\.", "SwiGLU"),
    (r"(^|\.)(rope|rotary)\w*(\.|$)|freqs_cis$", "rotary positions"),
    (r"\.attn\.[qk]_norm\.", "norms of query and key"),
    (r"\.attn\.rel_pos_[hw]$", "relative positions"),
    (r"(^|\.)(norm_pre|ln_pre)\.", "a norm before its blocks"),
)


def is_tar(start: bytes) -> bool:
    """Whether a file begins as a tar archive, which PyTorch of 2016 wrote and today's would unpack to the disk."""
    try:
        tarfile.TarInfo.frombuf(start[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def kind_of(path: Path, reason: str) -> str:
    """What a file is that neither PyTorch nor safetensors could read, and what to do; a message's end.

    Args:
        path: Not an empty file.
        reason: What the reader said.
    """
    with open(path, "rb") as stream:
        start = stream.read(600)
        stream.seek(max(path.stat().st_size - 8, 0))
        end = stream.read()
    if start.startswith(b"PK\x03\x04"[: len(start)]):
        return _zip(path, reason)
    for place, magic, said in MAGICS:
        if start[place:].startswith(magic):
            return said
    if re.match(rb"\x08[\x02-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]", start):
        return f"is an ONNX model. Take the model that it was exported from, and {SAVE}."
    if end == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb" or re.search(r"\.data-\d{5}-of-\d{5}$", path.name):
        return f"is a part of a TensorFlow checkpoint. {TENSORFLOW}"
    if is_tar(start):
        return _tar(start)
    if path.suffix == ".msgpack":
        return f"is a file of Flax. Load it in transformers with from_flax=True, and {SAVE}."
    if start[8:9] == b"{" or (path.suffix == ".safetensors" and len(start) < 9):
        return _safetensors(path, reason)
    if start.startswith(TORCH[: len(start)]):
        return CUT.format(f"or damaged: {reason}")
    if re.match(rb"\x80[\x02-\x05]", start):
        return (
            "is a plain pickle of Python, as detectron2's model zoo and scikit-learn write it, not a file of "
            f"torch.save. Only where you trust it, load it with pickle, and {SAVE}."
        )
    return (
        f"is not a checkpoint: it begins with {start[:16]!r}, as no file of PyTorch or safetensors does. It is damaged "
        "or of another program; download it again from where its weights are."
    )


def text_kind(path: Path) -> str:
    """For a text file under a checkpoint's name: what kind of text it is, and what to do. Empty for other files."""
    with open(path, "rb") as stream:
        start = stream.read(600)
    if not all(byte >= 32 or byte in b"\t\r\n" for byte in start):
        return ""
    text = start.decode("utf-8-sig", errors="replace").strip().lower()
    if "�" in text[:-1]:
        return ""
    if text.startswith("version https://git-lfs"):
        return "is a pointer of Git LFS, not the checkpoint. Fetch the file itself: git lfs pull"
    if text.startswith(("<!doctype", "<html", "<?xml", "<error", "<head", "<body")):
        return (
            "is a web page, not a checkpoint: the address asks for a login, or shows the file instead of sending it. "
            "Download the file itself, e.g. from an address with /resolve/ or /raw/ in it."
        )
    if text.startswith("{") and '"weight_map"' in _beginning(path):
        return f"is the list of a checkpoint in several files. {SHARDS}"
    kind = "a JSON file" if text.startswith(("{", "[")) else "a text file"
    return (
        f"is not a checkpoint: it is {kind}, which begins with {start[:16]!r}. Give the file of the weights; if this "
        "was to be it, download it again."
    )


def _beginning(path: Path) -> str:
    """A million characters: enough to know a list of weights by its key, whatever the size of the file."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(1 << 20)


SHARDS = "Give its list under the name that ends in .index.json, with all the files that it names beside it."


def folder_kind(folder: Path) -> str:
    """What a folder without one file of weights is, and what to do; empty where it is none that is known."""
    if next(folder.glob("*.index.json"), None) is not None:
        return f"holds a checkpoint in several files. {SHARDS}"
    if next(folder.glob("adapter_model.*"), None) is not None:
        return f"holds {NETWORKS[0][1]}."
    if (folder / "zero_to_fp32.py").is_file():
        return (
            "is a checkpoint of DeepSpeed, in one file per process. Join them: "
            f"python {folder}/zero_to_fp32.py {folder} NEW, and give what it wrote."
        )
    if (folder / ".metadata").is_file():
        return (
            "is a checkpoint of torch.distributed.checkpoint, in one file per process. Join them: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} NEW.pth"
        )
    if (folder / "saved_model.pb").is_file():
        return f"is TensorFlow's SavedModel. {TENSORFLOW}"
    return ""


def other_network(names: Iterable[str]) -> str:
    """The network or content that names of weights tell, where it is not a plain ViT or Swin; else empty."""
    names = list(names)
    return next((said for marks, said in NETWORKS if any(re.search(marks, name) for name in names)), "")


def other_vit(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """What a ViT has that a plain one has not, by the names and shapes of its weights; empty for a plain one."""
    found = [said for mark, said in PARTS if any(re.search(mark, name) for name in shapes)]
    positions = shapes.get("pos_embed", ())
    prefixed = "cls_token" in shapes and "reg_token" not in shapes
    if len(positions) == 3 and prefixed and math.isqrt(positions[1]) ** 2 == positions[1]:
        found.append("no position of its [CLS] token")
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def _zip(path: Path, reason: str) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError):
        return CUT.format(
            f"the end of its archive is missing or damaged; {path.stat().st_size:,} bytes are here"
        )
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        return f"is a TorchScript archive, which holds code beside its weights. {TRUSTED}"
    if any(name.endswith(("serialized_exported_program.json", "models/model.json")) for name in names):
        return "is a program of torch.export. In Python, save torch.export.load(FILE).state_dict with torch.save."
    if "data.pkl" in inner:
        return f"is whole, but holds what is not read here ({reason}). {TRUSTED}"
    if names and all(name.endswith(".npy") for name in names):
        return (
            "is an archive of NumPy (.npz), as Google's ViTs are released. Load it in Python with "
            "model = timm.create_model(NAME, checkpoint_path=FILE, num_classes=0), and save model.state_dict() with "
            "torch.save."
        )
    if {"model.weights.h5", "saved_model.pb"} & {name.rpartition("/")[2] for name in names}:
        return f"is a model of Keras or TensorFlow. {TENSORFLOW}"
    return f"is a zip archive of {len(names)} files ({first_shown(names, 2)}), not a checkpoint. {UNPACK}"


def _tar(start: bytes) -> str:
    first = tarfile.TarInfo.frombuf(start[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape").name
    return f"is a tar archive of files ({shown(first)}, ...), not a checkpoint. {UNPACK}"


def _safetensors(path: Path, reason: str) -> str:
    size = path.stat().st_size
    with open(path, "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(length) if length <= LONGEST_HEADER and 8 + length <= size else b""
    if length > LONGEST_HEADER:
        return (
            f"says that its header has {length:,} bytes; safetensors reads {LONGEST_HEADER:,} at most. It is damaged, "
            "or was made to fill the memory: copy it again, or ask its author for another file."
        )
    try:
        content = parse_json(header)
        needed = max(entry["data_offsets"][1] for name, entry in content.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, LookupError, AttributeError):
        needed = 0  # nothing that tells
    if not header or 8 + length + needed > size:
        return CUT.format(
            f"{size:,} bytes are here, {8 + length + (needed if header else 0):,} or more belong to it"
        )
    return (
        f"is not a file that safetensors reads ({reason}): copy it again, or ask its author for another file."
    )
