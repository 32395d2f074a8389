"""What a file is that is no weight file, as far as its first bytes tell."""

from __future__ import annotations

# Members of PyTorch's first format, in the order in which it wrote them.
TAR_MEMBERS = (b"sys_info\0", b"pickle\0", b"tensors\0", b"storages\0")
MAGIC = {
    b"\x1f\x8b": "is compressed by gzip: unpack it first",
    b"BZh": "is compressed by bzip2: unpack it first",
    b"\xfd7zXZ\0": "is compressed by xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive: unpack it first",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file (Keras?), not one of PyTorch or safetensors",
    b"\x93NUMPY": "is a NumPy array, not a weight file",
    b"GGUF": "is a GGUF file, not one of PyTorch or safetensors",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file itself: fetch that with `git lfs pull`",
    b"\x89PNG": "is a picture, not a weight file",
    b"\x7fELF": "is a program, not a weight file",
}
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the last bytes of the index of a checkpoint


def describe(head: bytes, tail: bytes) -> str | None:
    """A clause that goes on from the file's name, or None; `head`: its first 512 bytes, `tail`: its last 8."""
    for magic, what in MAGIC.items():
        if head.startswith(magic):
            return what
    if head[257:262] == b"ustar":
        if head.startswith(TAR_MEMBERS):
            return (
                "is in PyTorch's format from before 0.1.10 (a tar archive): if you trust it, convert it with "
                "torch.save(torch.load(OLD, weights_only=False), NEW)"
            )
        return "is a tar archive: unpack it first"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return "is a page of HTML or XML, not a weight file: a download that went wrong?"
    if text.startswith((b"{", b"[")):
        return "is JSON, not a weight file"
    if tail == TENSORFLOW:
        return "is the index of a TensorFlow checkpoint, not a file of PyTorch or safetensors"
    if head[:1] == b"\x08" and head[2:3] == b"\x12":  # a small number as field 1, text as field 2: its producer
        return "looks like an ONNX model or a TensorFlow graph, not a file of PyTorch or safetensors"
    return None
