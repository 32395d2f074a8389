"""Files that are broken, foreign or mean harm, each with what its error has to say."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
from weights.files import (
    EMPTY,
    LEGACY_HEAD,
    SIX,
    SYS_INFO,
    TWO,
    VALID,
    Call,
    Global,
    Persistent,
    dump,
    entry,
    legacy,
    program,
    safetensors,
    storage,
    tensor,
    zipped,
)

CASES: dict[str, tuple[bytes, str]] = {}


def case(name: str, content: bytes, text: str) -> None:
    assert name not in CASES, name
    CASES[name] = content, text


def pickled(name: str, opcodes_or_value, text: str) -> None:
    """A hostile object: in a zip archive and in the legacy format; once will do for the large ones."""
    content = program(opcodes_or_value) if isinstance(opcodes_or_value, bytes) else dump(opcodes_or_value)
    case(f"{name} (zip)", zipped(content, {"0": SIX}), text)
    if len(content) < 50_000:
        case(f"{name} (legacy)", legacy(content, {"0": (6, SIX)}), text)


# -- pickles that would run code: `touch executed`

SYSTEM = Call(Global("os", "system"), ("touch executed",))
RUN = b"X\x0e\0\0\0touch executed"
pickled("os.system", SYSTEM, "it names os.system, which was not executed")
pickled("os.system beside tensors", TWO | {"c": SYSTEM}, "it names os.system, which was not executed")
for protocol in (2, 4):
    case(
        f"posix.system, protocol {protocol}",
        zipped(dump(Call(Global("posix", "system"), ("touch executed",)), protocol), {}),
        "posix.system, which was not executed",
    )
pickled("eval", Call(Global("builtins", "eval"), ("open('executed', 'w')",)), "builtins.eval, which was not executed")
pickled("eval of Python 2", Call(Global("__builtin__", "eval"), ("1",)), "__builtin__.eval, which was not")
pickled("getattr", Call(Global("builtins", "getattr"), (1, "real")), "builtins.getattr, which was not executed")
pickled("a dotted name", Call(Global("torch", "_utils.os.system"), ("touch executed",)), "torch._utils.os.system, whi")
pickled("a name of PyTorch's own", Call(Global("torch.hub", "load"), ("x",)), "torch.hub.load, which was not executed")
pickled("another serializer", Call(Global("torch.storage", "_load_from_bytes"), (b"",)), "_load_from_bytes, which was")
pickled("a NumPy array", Call(Global("numpy.core.multiarray", "_reconstruct"), ()), "_reconstruct, which was not")
pickled("argparse.Namespace", {"a": tensor(), "args": Global("argparse", "Namespace")}, "argparse.Namespace, which was")
pickled("NEWOBJ", b"ccollections\nOrderedDict\n)\x81", "the opcode NEWOBJ is not part of a state dict")
pickled("INST", b"(" + RUN + b"ios\nsystem\n", "the opcode INST is not part of a state dict")
pickled("OBJ", b"(cos\nsystem\n" + RUN + b"o", "it names os.system, which was not executed")
pickled("EXT1", b"\x82\x01", "the opcode EXT1 is not part of a state dict")
pickled("EXT4", b"\x84\xff\xff\xff\x7f", "the opcode EXT4 is not part of a state dict")
pickled("PERSID", b"Pos.system\n", "the opcode PERSID is not part of a state dict")
pickled("BUILD on a tensor", Call(tensor().function, tensor().arguments, {"size": 1}), "BUILD on an object without")
pickled("BUILD on a function", b"ctorch._utils\n_rebuild_tensor\n}b", "BUILD on an object without attributes")
pickled("BUILD on nothing", b"}b", "BUILD on an object without attributes")
pickled("a call of text", b"X\x01\0\0\0a)R", "it calls str")
pickled("a call of a type", Call(Global("torch", "float32"), ()), "it calls DType")
pickled("a call without arguments", b"ccollections\nOrderedDict\n]R", "collections.OrderedDict is called without arg")
pickled("a name over two lines", Call(Global("os\x1b[2J", "sys\ttem"), ()), r"os\x1b[2J.sys tem, which was not exec")
pickled("a name without an end", b"c" + b"o" * 300, "a line of more than 256 bytes")
pickled("a name with an escape", rb"cos\\x61" + b"\nsystem\n", "or with a backslash")
pickled("an integer in digits", b"I1\n", "the opcode INT is not part of a state dict")
pickled("a name that is a number", b"K\x01K\x01\x93", "a global without a name")
case("os.system in place of the magic number", dump(SYSTEM), "it names os.system, which was not executed")
case("os.system as sys_info", legacy(TWO, {}, info=SYSTEM), "it names os.system, which was not executed")
case("os.system as the list of keys", legacy(TWO, {}, keys=SYSTEM), "it names os.system, which was not executed")

# -- whole models

MODEL = b"ctorchvision.models.resnet\nResNet\n)\x81}(X\x0b\0\0\0_parametersNX\x08\0\0\0_modulesNub"
pickled(
    "a whole model", MODEL, "a whole pickled model (class torchvision.models.resnet.ResNet), which was not executed"
)
pickled("a layer", Call(Global("torch.nn.modules.linear", "Linear"), ()), "(class torch.nn.modules.linear.Linear)")
pickled(
    "a model with its source",
    Persistent(("module", Global("torch", "float32"), "x.py", "import os")),
    "a whole pickled model, which was not executed: save its state_dict() instead",
)

# -- pickles that would fill the memory or never end

pickled("a memo of 2^31 places", b"}r\xff\xff\xff\x7f", "it is an empty dictionary")
for name, opcode, width in [
    ("BINUNICODE", pickle.BINUNICODE, 4), ("BINBYTES", pickle.BINBYTES, 4), ("BINSTRING", pickle.BINSTRING, 4),
    ("BINUNICODE8", pickle.BINUNICODE8, 8), ("BINBYTES8", pickle.BINBYTES8, 8), ("FRAME", pickle.FRAME, 8),
]:  # fmt: skip
    pickled(f"{name} of all lengths", opcode + b"\xff" * (width - 1) + b"\x7f", "truncated: it ends within a pickle")
pickled("a number of 2^31 bytes", b"\x8b\xff\xff\xff\x7f", "truncated: it ends within a pickle")
pickled("a number of 256 bytes", b"\x8b\0\1\0\0" + b"\1" * 256, "the pickle holds a number of more than 255 bytes")
pickled("a number in digits", b"I" + b"9" * 1_000_000 + b"\n", "a line of more than 256 bytes")
pickled("a long number in digits", b"L" + b"9" * 1_000_000 + b"L\n", "a line of more than 256 bytes")
pickled("tuples within tuples", b")" + b"\x85" * 100_000, "holds a tuple, not a state dict")
pickled("lists within lists", b"]" * 60_000 + b"a" * 59_999, "holds a list, not a state dict")
pickled("dictionaries within dictionaries", b"}" + b"K\x01}" * 30_000 + b"s" * 30_000, "holds no state dict")
pickled("marks", b"(" * 100_000, "nothing left on its stack")
pickled("no end of steps", b"}" * 400_000, "the pickle takes more than 300,000 steps")
pickled("no end of lists", b"]\x94" * 149_000, "holds a list, not a state dict")
pickled("a key that doubles", b"}" + b")" + b"q\0h\0\x86" * 60 + b"K\x01s", "a dictionary's key is a tuple")
pickled("DUP", b"}2", "the opcode DUP is not part of a state dict")
COPIES = b"ccollections\nOrderedDict\nq\0](" + b"]K\x01aK\x01a" * 10_000 + b"e\x85q\1" + b"h\0h\1R" * 30_000
pickled("a list copied again and again", COPIES, "the pickle takes more than 300,000 steps")
SIZES = b"ctorch\nSize\nq\0(" + b"K\x01" * 50_000 + b"t\x85q\1" + b"h\0h\1R" * 30_000
pickled("a tuple counted again and again", SIZES, "the pickle takes more than 300,000 steps")
NUMBERED = b"".join(b"M" + struct.pack("<H", k) + b"N" for k in range(20_000))
SAME = b"".join(b"M" + struct.pack("<H", k) + b"h\0" for k in range(20_000))
pickled("a dictionary searched again and again", b"}(K\1}q\0(" + NUMBERED + b"u" + SAME + b"u", "holds no state dict")
pickled("a dictionary within itself", b"}q\0X\x0a\0\0\0state_dicth\0s", "holds no state dict; its keys are 'state_di")
pickled("a list within itself", b"]q\0h\0a", "holds a list, not a state dict")
COLLIDING = b"}(" + b"".join(b"\x8a\x0b" + (k * ((1 << 61) - 1)).to_bytes(11, "little") + b"N" for k in range(5_000))
pickled("keys of the same hash", COLLIDING + b"u", "a dictionary's key is a int")

# -- broken pickles

pickled("nothing", b"", "nothing left on its stack")
pickled("no memo", b"h\0", "its memo holds nothing at 0")
pickled("no mark", b"t", "a MARK is missing")
pickled("a key without a value", b"}(K\x01u", "a key without a value")
pickled("SETITEM on a list", b"]K\x01K\x01s", "SETITEM on list")
pickled("APPEND on a tuple", b")K\x01a", "APPEND on tuple")
pickled("APPENDS on a dictionary", b"}(K\x01e", "APPENDS on dict")
pickled("a set", b"\x8f", "the opcode EMPTY_SET is not part of a state dict")
pickled("a buffer elsewhere", b"\x97", "the opcode NEXT_BUFFER is not part of a state dict")
pickled("no opcode", b"\xff", "unknown")
pickled("protocol 200", b"\x80\xc8", "unknown protocol 200")
pickled("text of no encoding", b"X\x02\0\0\0\xff\xfe", "text that is not UTF-8")
pickled("half a surrogate", b"X\x03\0\0\0\xed\xa0\x80", "text that is not UTF-8")
pickled("a key that is a float", {"a": tensor(), 0.5: 1}, "a dictionary's key is a float")
for name, items in {"a number": (1,), "too many": ([], []), "no pairs": ([[1]],), "text": (["ab"],)}.items():
    call = Call(EMPTY.function, items)
    pickled(f"an OrderedDict of {name}", call, "an OrderedDict of invalid items")

# -- tensors


def tensors(name: str, one, text: str) -> None:
    pickled(name, {"a": one}, text)


STORE = "a tensor with an invalid storage, offset, size or stride"
tensors("one element too many", tensor(size=(7,), stride=(1,)), "tensor 'a' reaches to element 6 of a storage that hol")
tensors("an offset behind the end", tensor(size=(), stride=(), offset=6), "reaches to element 6 of a storage that ho")
tensors("a stride over the end", tensor(size=(2,), stride=(1 << 62,)), "reaches to element 4,611,686,018,427,387,904")
tensors("one number 2^40 times", tensor(size=(1 << 20, 1 << 20), stride=(0, 0)), "take 4,398,046,511,104 bytes, ")
tensors("2^62 elements", tensor(size=(1 << 62,), stride=(0,)), "has too many elements for an array")
tensors("2^62 times no elements", tensor(size=(1 << 62, 0), stride=(0, 0)), "has too many elements for an array")
tensors("33 dimensions", tensor(size=(1,) * 33, stride=(1,) * 33), "has 33 dimensions, at most 32 are supported")
tensors("a negative stride", tensor(stride=(-3, 1)), STORE)
tensors("a negative offset", tensor(offset=-1), STORE)
tensors("a negative size", tensor(size=(-1, 3)), STORE)
tensors("a size in floats", tensor(size=(2.0, 3)), STORE)
tensors("a size that is true", tensor(size=(True, 3)), STORE)
tensors("a size in a list", tensor(size=[2, 3]), STORE)
tensors("a size of 600 digits", tensor(size=(1 << 2000, 3)), STORE)
tensors("one stride missing", tensor(stride=(1,)), "a tensor of 2 dimensions and 1 strides")
tensors("a tensor of nothing", Call(tensor().function, ()), STORE)
tensors("a tensor of text", Call(tensor().function, ("0", 0, (6,), (1,))), STORE)
tensors("a parameter of nothing", Call(Global("torch._utils", "_rebuild_parameter"), ()), "a parameter without a ten")
tensors(
    "a negated tensor",
    Call(tensor().function, (*tensor().arguments, {"neg": True})),
    "holds a lazily negated or conjugated tensor",
)
THIRD = Global("torch._utils", "_rebuild_tensor_v3")
tensors("a tensor without a type", Call(THIRD, tensor().arguments), "a tensor without a type")
for kind, dtype in {"ComplexFloatStorage": "complex64", "QInt8Storage": "qint8"}.items():
    size = 8 if dtype == "complex64" else 1
    one = {"a": tensor(kind=kind)}
    case(f"{dtype} (zip)", zipped(one, {"0": bytes(6 * size)}), f"tensor 'a' is {dtype}, which is not supported")
    case(f"{dtype} (legacy)", legacy(one, {"0": (6, bytes(6 * size))}), f"tensor 'a' is {dtype}, which is not suppo")
RARE = Call(THIRD, (storage(kind="UntypedStorage"), 0, (6,), (1,), False, EMPTY, Global("torch", "float8_e4m3fnuz")))
case("a rarer float8", zipped({"a": RARE}, {"0": bytes(6)}), "tensor 'a' is float8_e4m3fnuz, which is not supported")
for name, kind in {
    "_rebuild_qtensor": "quantised", "_rebuild_sparse_tensor": "sparse",
    "_rebuild_meta_tensor_no_storage": "meta", "_rebuild_nested_tensor": "nested",
}.items():  # fmt: skip
    tensors(f"a {kind} tensor", Call(Global("torch._utils", name), ()), f"holds a {kind} tensor, which is not support")

# -- storages

NONE = "a storage with an invalid type, key or size"
pickled("a persistent id that is text", Persistent("os.system"), "a persistent id that is not a storage")
pickled("a short persistent id", Persistent(("storage",)), "a persistent id that is not a storage")
pickled("a persistent id of another kind", Persistent(("file", 1, 2, 3, 4)), "a persistent id that is not a storage")
tensors("a storage of no type", tensor() and Persistent(("storage", 1, "0", "cpu", 6)), NONE)
tensors("a storage without a key", tensor(key=0), NONE)
tensors("a storage of -1 elements", tensor(count=-1), NONE)
tensors("a storage of 2^63 elements", tensor(count=1 << 63), NONE)
tensors("a view over the end", tensor(view=[("v", 3, 4)]), "a view that does not fit its storage")
tensors("a view that is text", tensor(view=["v"]), "a view that does not fit its storage")
tensors("a tensor over the end of a view", tensor(view=[("v", 3, 3)]), "reaches to element 5 of a storage that holds 3")
pickled("a storage of two types", {"a": tensor(), "b": tensor(kind="IntStorage")}, "'0' has two types or sizes")
pickled("a storage of two sizes", {"a": tensor(), "b": tensor(count=7)}, "storage '0' has two types or sizes")
ONE = {"a": tensor()}
case("a storage is missing", zipped(ONE, {}), "'archive/data/0' is missing from the zip archive")
case("a storage elsewhere", zipped({"a": tensor("../../etc/passwd")}, {"0": SIX}), "/etc/passwd' is missing from the")
case("a storage too short", zipped(ONE, {"0": SIX[:-1]}), "'archive/data/0' holds 23 bytes, its tensors need 24")
case("a storage too long", zipped(ONE, {"0": SIX + b"\0"}), "'archive/data/0' holds 25 bytes, its tensors need 24")
case("a storage of 2^60", zipped({"a": tensor(count=1 << 60)}, {"0": SIX}), "its tensors need 4,611,686,018,427,387,9")
case("a byte order of its own", zipped(ONE, {"0": SIX}, byteorder=b"middle"), "its byte order is b'middle'")

# -- what the file holds is no state dict

pickled("two state dicts", {"model": TWO, "state_dict": TWO}, "several state dicts, under 'state_dict', 'model'")
pickled("a tensor alone", tensor(), "holds a single tensor, not a state dict")
pickled("a number", 3, "holds a int, not a state dict")
pickled("a dictionary of numbers", {"lr": 0.1, "\n" * 9: 1}, r"its keys are 'lr', '\n\n")
pickled(
    "tensors under another key",
    {"encoder": TWO},
    "tensors under 'encoder'; a state dict must be under one of",
)
pickled("a number among tensors", {"a": tensor(), "epoch": 3}, "entry 'epoch' is not a tensor, but int")
pickled("a tensor named 1", {1: tensor()}, "its key 1 is not a string")
pickled("a name of 10^6 letters", {"x" * 1_000_000: tensor(offset=9)}, "xxxx…")

# -- zip archives


def patched(content: bytes, name: bytes, central: int, value: bytes, local: int | None = None) -> bytes:
    """The archive with other bytes at an offset of the member's entry in the directory, and of its own header."""
    data = bytearray(content)
    at = data.rindex(name)
    data[at - 46 + central : at - 46 + central + len(value)] = value
    if local is not None:
        at = data.index(name)
        data[at - 30 + local : at - 30 + local + len(value)] = value
    return bytes(data)


def members(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return out.getvalue()


ZIP = zipped(ONE, {"0": SIX})
DEFLATED = zipped(ONE, {"0": bytes(24)}, deflate=True)
DATA, PICKLE = b"archive/data/0", b"archive/data.pkl"
case("a checksum", ZIP.replace(SIX, SIX[::-1]), "Bad CRC-32 for file 'archive/data/0'")
case("an encrypted member", patched(ZIP, DATA, 8, b"\1\0"), "is encrypted")
case("another compression", patched(ZIP, DATA, 10, b"\x0c\0"), "is compressed by method 12: PyTorch compresses nothing")
case("an unknown compression", patched(ZIP, PICKLE, 10, b"\x63\0"), "is compressed by method 99")
case("two sizes", patched(ZIP, DATA, 20, b"\x17\0\0\0"), "Bad CRC-32 for file 'archive/data/0'")
case("more than it holds", patched(DEFLATED, PICKLE, 24, b"\xff\xff\0\0"), "bytes, its directory entry 65,535")
case("less than it holds", patched(DEFLATED, PICKLE, 24, b"\x10\0\0\0"), "Bad CRC-32 for file 'archive/data.pkl'")
LISTED = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"x"  # a member that takes no bytes but these
DIRECTORY = LISTED * 100_000
END = struct.pack("<4s4xHHIIH", b"PK\5\6", 0xFFFF, 0xFFFF, len(DIRECTORY), 0, 0)
case(
    "a directory of 100,000 members",
    b"PK\3\4" + DIRECTORY + END,
    "its directory takes 4,700,000 bytes, 4,194,304",
)
BIG = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 100_000, 100_000, len(DIRECTORY), 4)
PLACE = struct.pack("<4sIQI", b"PK\6\7", 0, 4 + len(DIRECTORY), 1)
END = struct.pack("<4s4xHHIIH", b"PK\5\6", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
case("a directory in 64 bits", b"PK\3\4" + DIRECTORY + BIG + PLACE + END, "its directory takes 4,700,000 bytes")
case("two names", patched(ZIP, DATA, 46, b"archive/data/1"), "'archive/data/0' is missing from the zip archive")
case("a header elsewhere", patched(ZIP, DATA, 42, b"\xff\xff\xff\x7f"), "truncated or broken zip archive: 'archive/da")
case("a header of another", patched(ZIP, DATA, 42, b"\0\0\0\0"), "differ")
case("a damaged stream", DEFLATED[:60] + b"\xff\xff" + DEFLATED[62:], "zip archive: 'archive/data.pkl'")
case("two data.pkl of long names", members("a/data.pkl", "b" * 60_000 + "/data.pkl"), "holds 2 data.pkl, not one")
LONG = zipped(program(b"N"), {}, prefix="b" * 60_000 + "/").replace(b"bbb", b"ccc", 1)
case("two names of 60,000 letters", LONG, "zip archive: 'bbbb")
case("no directory", ZIP[: ZIP.index(b"PK\1\2")], "truncated or broken zip archive: File is not a zip file")
BOMB = zipped(program(b"N0" * 10 + b"X\0\0\0\1" + b"x" * (1 << 24)), {}, deflate=True)
case("a pickle that unpacks to 16 MiB", BOMB, "unpacks to 16,777,2")
BOMB = zipped({"a": tensor(count=1 << 22)}, {"0": bytes(1 << 24)}, deflate=True)
case("a storage that unpacks to 16 MiB", BOMB, "unpacks to 16,777,216 bytes, more than a file of this size may hold")
case("a lie about 16 MiB", patched(BOMB, DATA, 24, b"\x18\0\0\0"), "holds 24 bytes, its tensors need 16,777,216")
SMALL = zipped(ONE, {"0": bytes(80 << 20)}, deflate=True)
case("24 bytes that unpack to 80 MiB", patched(SMALL, DATA, 24, b"\x18\0\0\0"), "Bad CRC-32 for file 'archive/data/0'")


def overlapping() -> bytes:
    """A second storage whose entry leads to the bytes of the first."""
    data = bytearray(zipped(ONE | {"b": tensor("1")}, {"0": SIX, "1": SIX}))
    first, second = data.rindex(b"archive/data/0"), data.rindex(b"archive/data/1")
    data[second - 4 : second] = data[first - 4 : first]
    return bytes(data)


case("members that overlap", overlapping(), "differ")


case("no data.pkl", members("a/b", "c"), "the zip archive holds 0 data.pkl, not one")
case("two data.pkl", members("a/data.pkl", "b/data.pkl"), "the zip archive holds 2 data.pkl, not one")
twice = members("a/data.pkl", "a/data/1", "a/data/2").replace(b"a/data/2", b"a/data/1")
case("two members of a name", twice, "holds two members of the same name")
case("TorchScript", members("m/data.pkl", "m/constants.pkl", "m/code/m.py"), "is a TorchScript archive, which is a pro")
case("an npz archive", members("a.npy", "b.npy"), "is an npz archive of NumPy arrays, not a weight file")
case("a Keras model", members("config.json", "model.weights.h5"), "is a Keras model, not a weight file of PyTorch")

# -- the legacy format

case("another magic number", dump(1) + dump(1001), "is a pickle, but not one that torch.save wrote")
case("a pickle of something", dump({"a": 1}), "is a pickle, but not one that torch.save wrote")
case("another version", dump(0x1950A86A20F9469CFC6C) + dump(1002), "an unknown version of PyTorch's legacy format")
case("no list of keys", legacy(ONE, {}, keys=3), "its list of storages is invalid")
case("keys that are numbers", legacy(ONE, {}, keys=[1]), "its list of storages is invalid")
case("a key twice", legacy(ONE, {"0": (6, SIX)}, keys=["0", "0"]), "its list of storages is invalid")
case("a key of nothing", legacy(ONE, {"0": (6, SIX)}, keys=["0", "1"]), "it lists a storage '1' that no tensor uses")
case("no key", legacy(ONE, {}), "storage '0' is missing")
case("another count", legacy(ONE, {"0": (5, SIX)}), "storage '0' holds 5 elements, not 6")
case("a negative count", legacy(ONE, {"0": (-6, SIX)}), "storage '0' holds -6 elements, not 6")
case("2^60 elements", legacy({"a": tensor(count=1 << 60)}, {"0": (1 << 60, SIX)}), "storage '0' takes 4,611,686,018,4")
case("bytes behind the end", VALID["legacy"] + b"\0", "1 bytes follow the last storage")
case("only the head", LEGACY_HEAD + dump(SYS_INFO), "truncated: it ends within a pickle")

# -- safetensors


def header(name: str, fields, text: str, content: bytes = SIX, length: int | None = None) -> None:
    case(f"safetensors: {name}", safetensors(fields, content, length), text)


JSON = "no valid safetensors file: "
header("a header of 2^60 bytes", {}, "its header claims 1,152,921,504,606,846,976 of the file's", length=1 << 60)
header("a header one byte too long", {"a": entry()}, "its header claims", length=100)
header("a header of no bytes", {"a": entry()}, JSON, length=0)
header("a header of 5 MB", b"{" + b" " * 5_000_000 + b"}", "its header takes 5,000,002 bytes, 4,194,304")
header("no JSON", b"{nothing", JSON)
header("no text", b"{\xff\xfe}", JSON)
header("a list", b"{[]}", JSON)
header("depth", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", JSON)
header("a duplicate", b'{"a":%s,"a":%s}' % ((b'{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}',) * 2), "repeats a")
header("an overlap", {"a": entry(), "b": entry("F32", (3,), (12, 24))}, JSON)
header("a hole", {"a": entry("F32", (1,), (0, 4)), "b": entry("F32", (1,), (8, 12))}, JSON, SIX[:12])
header("an end behind the file's", {"a": entry("F32", (8,), (0, 32))}, JSON)
header("bytes behind the end", {"a": entry()}, JSON, SIX + b"\0")
header("offsets reversed", {"a": entry("F32", (6,), (24, 0))}, JSON)
header("an unknown type", {"a": entry("F33")}, JSON)
header("another number of bytes", {"a": entry("F32", (2, 2))}, JSON)
header("a shape that overflows", {"a": entry("F32", (1 << 33, 1 << 33, 0), (0, 0))}, JSON, b"")
header("2^40 elements", {"a": entry("F32", (1 << 40,))}, JSON)
header("a negative shape", {"a": entry("F32", (-2, -3))}, JSON)
header("a float as shape", {"a": entry("F32", (2.0, 3))}, JSON)
header("metadata of numbers", {"__metadata__": {"a": 1}, "a": entry()}, JSON)
header("33 dimensions", {"a": entry("F32", (1,) * 32 + (6,))}, "tensor 'a' has 33 dimensions, at most 32 are supported")
header("no elements of 2^60", {"a": entry("U8", (1 << 60, 0), (0, 0))}, "too many elements for an array", b"")
header("complex numbers", {"a": entry("C64", (3,))}, "tensor 'a' is C64, which is not supported: convert it to F32")
header("exponents", {"a": entry("F8_E8M0", (24,))}, "tensor 'a' is F8_E8M0, which is not supported")

# -- something else


def tar(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


case("an empty file", b"", "is empty")
case("a page", b"\n<!DOCTYPE html><html><body>404", "is a page of HTML or XML, not a weight file: a download that")
case("another page", b"<HTML><body>", "is a page of HTML or XML")
case("a pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a pointer of Git LFS, not")
case("gzip", gzip.compress(VALID["zip"]), "is compressed by gzip: unpack it first")
case("bzip2", bz2.compress(VALID["zip"]), "is compressed by bzip2: unpack it first")
case("xz", lzma.compress(VALID["zip"]), "is compressed by xz: unpack it first")
case("tar", tar("weights.pth"), "is a tar archive: unpack it first")
case("PyTorch's first format", tar("sys_info", "pickle", "tensors", "storages"), "from before 0.1.10 (a tar archive)")
case("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(600), "is an HDF5 file (Keras?)")
case("npy", npy(), "is a NumPy array, not a weight file")
case("JSON", b'{"weight_map": {}}', "is JSON, not a weight file")
case("ONNX", b"\x08\x07\x12\x07pytorch\x1a\x03" + bytes(600), "looks like an ONNX model")
case("TensorFlow", bytes(100) + struct.pack("<Q", 0xDB4775248B80FB57), "is the index of a TensorFlow checkpoint")
case("text", b"conv1.weight 0.1 0.2", "neither of PyTorch nor safetensors")
case("one byte", b"\x80", "neither of PyTorch nor safetensors")
