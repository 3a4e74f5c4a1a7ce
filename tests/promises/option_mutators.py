"""Texts behind `--cfg-options`, as people type them, with what must become of each.

A text or path stays as it was typed; a number must be one of the key's kind; a list may stand in brackets of either
kind or without; quotes around a whole value or around a member of a list are the shell's leftovers; None, and True and
False for a switch, are what they say. A key without a value in the config (None) takes a number, a truth value or a
list in brackets as such, and every other text as typed.
"""

from tests.promises.verdicts import NeverIgnored, OptionCase, Refused, Value

__all__ = ["CASES", "CONFIG", "CONFIG_OF_VARIABLES", "VARIABLE_CASES"]

# The config of CASES: plain values, which nothing else in the file has used but for the data root.
CONFIG = """\
data_root = "data/coco/"
dataset_name = "parts"
base_lr = 1e-4
compile = False
scale = (1333, 800)
milestones = [8, 11]
classes = ("scratch", "dent")
load_from = None
seed = None
train_cfg = dict(max_iters=100, val_interval=10)
model = dict(backbone=dict(drop_path_rate=0.1, init_cfg=dict(type="Pretrained", checkpoint="runs/a.pth")))
pipeline = [dict(type="Load"), dict(type="Resize", scale=(1333, 800), keep_ratio=True)]
train_dataloader = dict(dataset=dict(data_root=data_root))
"""

# The config of VARIABLE_CASES: the file has used its variables before an option can change them.
CONFIG_OF_VARIABLES = """\
data_root = "data/coco/"
classes = ("scratch", "dent")
crop_size = (512, 512)
image_size = 640
spare = 5
ann_file = f"{data_root}annotations/train.json"
model = dict(roi_head=dict(num_classes=len(classes)), data_preprocessor=dict(size=crop_size))
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file=ann_file,
        metainfo=dict(classes=classes),
        pipeline=[dict(type="Resize", scale=(image_size, image_size)), dict(type="RandomCrop", crop_size=crop_size)],
    )
)
"""


def _is(name: str, option: str, value: object, why: str) -> OptionCase:
    return OptionCase(name, option, Value(value), why)


def _no(name: str, option: str, why: str) -> OptionCase:
    return OptionCase(name, option, Refused(), why)


TEXTS = (
    _is(
        "path-with-spaces",
        "data_root=/my photos/",
        "/my photos/",
        "Folders have spaces; without them it is another folder.",
    ),
    _is("path-with-comma", "data_root=a,b", "a,b", "A comma is a character of a path, not a list."),
    _is("path-of-digits", "data_root=123", "123", "Folders are named after days and jobs."),
    _is("path-of-zeros", "data_root=007", "007", "Leading zeros belong to the name."),
    _is("path-like-a-float", "data_root=1e5", "1e5", "A commit's first digits may look like a number."),
    _is("path-like-a-truth-value", "data_root=True", "True", "A text stays a text."),
    _is(
        "path-in-parentheses",
        "data_root=/data/(copy)/",
        "/data/(copy)/",
        "Windows and browsers write (copy).",
    ),
    _is(
        "path-all-in-brackets",
        "dataset_name=[old]",
        "[old]",
        "A text stays a text, whatever its first character is.",
    ),
    _is(
        "path-with-open-bracket", "data_root=/data/a(1", "/data/a(1", "A bracket in a path needs no partner."
    ),
    _is(
        "path-with-equals-sign",
        "data_root=/runs/lr=1e-3/seed=0",
        "/runs/lr=1e-3/seed=0",
        "Only the first equals sign divides key and value.",
    ),
    _is("path-unicode", "data_root=/Größe/写真/", "/Größe/写真/", "Not every language is English."),
    _is(
        "path-with-apostrophe",
        "data_root=/Tom's photos'",
        "/Tom's photos'",
        "An apostrophe at the end is part of the name.",
    ),
    _is(
        "path-with-braces",
        "data_root=train-{000..146}.tar::val-*.tar",
        "train-{000..146}.tar::val-*.tar",
        "The documented patterns of shards.",
    ),
    _is("path-of-windows", "data_root=C:\\photos\\new", "C:\\photos\\new", "Backslashes are no escapes."),
    _is(
        "path-in-quotes",
        "data_root='/my photos/'",
        "'/my photos/'",
        "A text stays as typed; the error of the folder that is not there shows the quotes.",
    ),
    _is(
        "path-in-double-quotes",
        'data_root="a,b"',
        '"a,b"',
        "A text stays as typed; the error of the folder that is not there shows the quotes.",
    ),
    _no("path-empty", "data_root=", "A variable of the shell was empty; the paths would start at /."),
    _no(
        "text-none",
        "data_root=None",
        "The config's paths start with it: neither None nor a folder of that name is what anybody wants.",
    ),
    _is(
        "nested-path",
        "model.backbone.init_cfg.checkpoint=runs/my run,2/a.pth",
        "runs/my run,2/a.pth",
        "The rule holds at any depth.",
    ),
)

NUMBERS = (
    _is("float", "base_lr=1e-5", 1e-5, "The usual way to type a rate."),
    _is("float-as-int", "base_lr=1", 1.0, "1 is a float too."),
    _is("float-upper-case", "base_lr=5E-5", 5e-5, "The same number."),
    _no(
        "float-cut", "base_lr=1e", "A key was missed; as a text it would stop training with a strange error."
    ),
    _no("float-cut-sign", "base_lr=1e-", "A key was missed."),
    _no("float-decimal-comma", "base_lr=0,0001", "A decimal comma would become the list 0, 1."),
    _no("float-with-unit", "base_lr=1e-4/s", "It is not a number."),
    _no("float-word", "base_lr=fast", "It is not a number."),
    _no("float-nan", "base_lr=nan", "A rate that is not a number makes all weights NaN."),
    _no("float-truth-value", "base_lr=True", "A truth value would count as 1."),
    _no("float-list", "base_lr=[1e-4,1e-5]", "A list does not fit where one number belongs."),
    _no("float-empty", "base_lr=", "A variable of the shell was empty."),
    _is("int", "train_cfg.max_iters=512", 512, "The usual case."),
    _no(
        "int-as-float",
        "train_cfg.max_iters=512.0",
        "A count that is a float stops training later, in range().",
    ),
    _no(
        "int-scientific",
        "train_cfg.max_iters=1e5",
        "It is a float to Python; the message says to type 100000.",
    ),
    _no("int-thousands", "train_cfg.max_iters=90,000", "It would become the list 90, 0."),
    _no("int-word", "train_cfg.max_iters=many", "It is not a number."),
    _no("int-truth-value", "train_cfg.max_iters=True", "It would train one step."),
    _no("int-empty", "train_cfg.max_iters=", "A variable of the shell was empty."),
)

SWITCHES = (
    _is("switch", "compile=True", True, "The usual case."),
    _is("switch-lower-case", "compile=true", True, "As YAML and the shell write it."),
    _is("switch-off", "pipeline.1.keep_ratio=false", False, "As a text, false would count as true."),
    _is("switch-digit", "compile=1", True, "1 and 0 are as old as switches."),
    _is("switch-digit-off", "pipeline.1.keep_ratio=0", False, "1 and 0 are as old as switches."),
    _no("switch-word", "compile=maybe", "As a text it would count as true."),
    _no("switch-misspelt", "compile=Flase", "As a text it would count as true."),
    _no("switch-number", "compile=2", "A switch is on or off."),
)

LISTS = (
    _is("list-in-parentheses", "scale=(640,480)", (640, 480), "The usual case."),
    _is(
        "list-with-space", "scale=(640, 480)", (640, 480), "A space behind the comma means nothing in a list."
    ),
    _is("list-in-brackets", "scale=[640,480]", (640, 480), "Either kind of brackets is a list."),
    _is("list-bare", "scale=640,480", (640, 480), "MMEngine's documented way, KEY=V1,V2."),
    _is(
        "list-in-a-pipeline",
        "pipeline.1.scale=(640,480)",
        (640, 480),
        "Members of a list are reached by number.",
    ),
    _is("list-of-one", "milestones=[9]", [9], "One member in brackets is a list."),
    _no("list-open", "scale=(640,480", "A bracket is missing."),
    _no("list-of-a-word", "scale=(640,auto)", "A word does not fit among numbers."),
    _no("list-of-a-cut-number", "milestones=[8,1e]", "A key was missed."),
    _is("names", "classes=(rust,crack)", ("rust", "crack"), "Names need no quotes."),
    _is("names-bare", "classes=rust,crack", ("rust", "crack"), "MMEngine's documented way, KEY=V1,V2."),
    _is(
        "names-in-quotes",
        "classes=['rust', \"crack\"]",
        ("rust", "crack"),
        "As prepare_data prints the line of classes.",
    ),
    _is(
        "names-with-spaces",
        "classes=('fire hydrant','stop sign')",
        ("fire hydrant", "stop sign"),
        "COCO's names have spaces.",
    ),
    _is(
        "names-with-spaces-bare",
        "classes=(fire hydrant, stop sign)",
        ("fire hydrant", "stop sign"),
        "A space inside a name belongs to it.",
    ),
    _is(
        "names-with-comma",
        "classes=('rust, heavy','crack')",
        ("rust, heavy", "crack"),
        "Inside quotes a comma belongs to the name.",
    ),
    _is("names-of-digits", "classes=(stop,50)", ("stop", "50"), "Among names, 50 is a name."),
    _is("names-like-values", "classes=(None,True)", ("None", "True"), "Among names, None is a name."),
    _is("names-one", "classes=(crack,)", ("crack",), "As Python writes one member."),
    _is(
        "names-one-in-parentheses", "classes=(crack)", ("crack",), "On the command line brackets make a list."
    ),
    _is(
        "names-as-text",
        "classes=crack",
        ("crack",),
        "One word where a list of names belongs is one name, as in parentheses; it must never be c, r, a, c, k.",
    ),
    _no("names-none", "classes=()", "There is nothing to train without a class."),
)

OTHERS = (
    _is(
        "none-path",
        "load_from=/my runs/a,b.pth",
        "/my runs/a,b.pth",
        "A path for a key that was None stays as typed.",
    ),
    _is("none-number", "seed=7", 7, "A number for a key that was None is a number."),
    _is("none-key-below", "+seed.value=1", 1, "A leading + adds keys also below None."),
    _is("none-stays", "load_from=None", None, "None is what it says."),
    _is(
        "none-for-a-dictionary",
        "model.backbone.init_cfg=None",
        None,
        "The documented way to start from random weights.",
    ),
    _is("new-key", "+note.number=1", 1, "A leading + adds a key on purpose."),
    _is("new-text", "+note.text=my folder", "my folder", "A new text stays as typed."),
    _no("unknown-key", "unknown.key=1", "A key that the config lacks changes nothing."),
    _no("misspelt-key", "train_cfg.max_itres=5", "The message names the keys that are there."),
    _no("misspelt-depth", "max_iters=5", "The key is deeper, and the message can say where."),
    _no("key-below-a-number", "base_lr.value=1", "A number has no keys."),
    _no("new-key-below-a-number", "+base_lr.value=1", "A number has no keys, and a + gives it none."),
    _no("number-beyond-a-list", "pipeline.9.scale=(640,480)", "The list has two members."),
    _no("name-into-a-list", "pipeline.Resize.scale=(640,480)", "Members of a list are reached by number."),
    _no("no-equals-sign", "data_root", "The value is missing."),
    _no("no-key", "=5", "The key is missing."),
    _no("space-before-equals-sign", "base_lr =1e-5", "The key with a space is another key."),
    _no("text-for-a-dictionary", "train_cfg=long", "A text does not fit where a dictionary belongs."),
)

CASES: tuple[OptionCase, ...] = TEXTS + NUMBERS + SWITCHES + LISTS + OTHERS

_DATASET = "train_dataloader.dataset"

VARIABLE_CASES: tuple[OptionCase, ...] = (
    OptionCase(
        "used-data-root",
        "data_root=/my photos/",
        NeverIgnored("/my photos/", (f"{_DATASET}.data_root",)),
        "The README promises that data_root moves the data.",
    ),
    OptionCase(
        "used-data-root-in-a-path",
        "data_root=new/",
        NeverIgnored("new/annotations/train.json", (f"{_DATASET}.ann_file",)),
        "To move the images and not the labels would be worse than to refuse.",
    ),
    OptionCase(
        "used-classes",
        "classes=(rust,crack)",
        NeverIgnored(("rust", "crack"), (f"{_DATASET}.metainfo.classes",)),
        "An option that changes nothing trains the old classes.",
    ),
    OptionCase(
        "used-classes-in-a-count",
        "classes=(a,b,c)",
        NeverIgnored(3, ("model.roi_head.num_classes",)),
        "The head must follow the classes, or the option be refused.",
    ),
    OptionCase(
        "used-crop-size",
        "crop_size=(256,256)",
        NeverIgnored((256, 256), (f"{_DATASET}.pipeline.1.crop_size", "model.data_preprocessor.size")),
        "Half an effect is worse than none.",
    ),
    OptionCase(
        "used-number",
        "image_size=320",
        NeverIgnored((320, 320), (f"{_DATASET}.pipeline.0.scale",)),
        "The number is inside a pair by now.",
    ),
    OptionCase(
        "used-variable-by-way-of-another",
        "ann_file=b.json",
        NeverIgnored("b.json", (f"{_DATASET}.ann_file",)),
        "A variable made of a variable is one too.",
    ),
    OptionCase(
        "variable-that-nothing-reads", "spare=6", Refused(), "Nothing reads it, so changing it is a mistake."
    ),
    OptionCase(
        "leaf-behind-a-variable",
        f"{_DATASET}.metainfo.classes=(rust,crack)",
        Value(("rust", "crack")),
        "The place that is read can be set itself.",
    ),
    OptionCase(
        "path-behind-a-variable",
        f"{_DATASET}.data_root=/my photos/",
        Value("/my photos/"),
        "The place that is read can be set itself.",
    ),
)
