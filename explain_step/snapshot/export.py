"""Files for an auditor: a folder or a zip file whose bytes depend on its content alone."""

from __future__ import annotations

import os
import shutil
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from explain_step.errors import InvalidInput
from explain_step.hashes import sha256_bytes, sha256_file

SUMS = "SHA256SUMS"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip file can hold."""


def bundle(
    to: str | Path,
    *,
    texts: Mapping[str, str],
    folders: Mapping[str, Path],
    leave_out: Mapping[str, frozenset[str]],
) -> tuple[str, ...]:
    """Write texts and copies of folders to a new folder or ``.zip`` file, with a list of SHA-256 digests.

    Parameters
    ----------
    to : path
        Must not be there yet; a folder may be there when it is empty. The ending ``.zip`` makes a zip file.
    texts : mapping of str to str
        Relative path to content.
    folders : mapping of str to path
        Name in the bundle to the folder that is copied. Links are refused.
    leave_out : mapping of str to frozenset of str
        For a name in the bundle, direct children that are not copied.

    Returns
    -------
    tuple of str
        Relative paths of everything written, sorted.

    Raises
    ------
    InvalidInput
        The place is taken, or a folder holds a link.

    Notes
    -----
    The same content gives the same bytes: names are sorted, times and modes are fixed, nothing is compressed (tables and
    figures are already, and compressors differ between versions).
    """
    target = Path(to)
    if target.exists() and not (target.is_dir() and not any(target.iterdir()) and target.suffix != ".zip"):
        msg = f"Argument to must be a new folder or .zip file, {str(target)!r} is there already; nothing is overwritten."
        raise InvalidInput(msg)
    files: dict[str, Path | str] = dict(texts)
    for name, folder in folders.items():
        files.update(_below(folder, name=name, leave_out=leave_out.get(name, frozenset())))
    _check_names(files)
    sums = "".join(f"{_digest(files[name])}  {name}\n" for name in sorted(files))
    files[SUMS] = sums
    (_zip if target.suffix == ".zip" else _folder)(target, files)
    return tuple(sorted(files))


def new_file(to: str | Path, text: str) -> str:
    """Write a text to a new file and return its name.

    Raises
    ------
    InvalidInput
        The place is taken.
    """
    target = Path(to)
    if target.exists():
        msg = f"Argument to must be a new file, {str(target)!r} is there already; nothing is overwritten."
        raise InvalidInput(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    return target.name


def check_outside(to: str | Path, snapshot: Path) -> None:
    """Refuse a place inside the snapshot, which would no longer verify with files that its manifest does not name.

    Raises
    ------
    InvalidInput
        ``to`` is the snapshot, or below it.
    """
    if Path(to).resolve().is_relative_to(snapshot.resolve()):
        msg = (
            f"Argument to must be outside of the snapshot, {str(to)!r} is inside: it would no longer verify."
        )
        raise InvalidInput(msg)


def _below(folder: Path, *, name: str, leave_out: frozenset[str]) -> Iterator[tuple[str, Path]]:
    for at, directories, names in os.walk(folder):
        directories.sort()
        top = Path(at) == folder
        linked = [d for d in directories if (Path(at) / d).is_symlink() and not (top and d in leave_out)]
        if linked:
            msg = f"A bundle holds regular files only; {str(Path(at) / linked[0])!r} is a link."
            raise InvalidInput(msg)
        for entry in sorted(names):
            path = Path(at) / entry
            relative = path.relative_to(folder)
            if top and entry in leave_out:
                continue
            if path.is_symlink() or not path.is_file():
                msg = f"A bundle holds regular files only; {str(path)!r} is a link or a special file."
                raise InvalidInput(msg)
            yield f"{name}/{relative.as_posix()}", path
        if top:
            directories[:] = [d for d in directories if d not in leave_out]


def _check_names(names: Iterable[str]) -> None:
    """Refuse names that are another file, or another line of the digests, where the bundle is unpacked."""
    seen: dict[str, str] = {}
    for name in names:
        odd = any(ord(c) < 32 or c in '\\:*?"<>|\x7f' or "\ud800" <= c <= "\udfff" for c in name)
        if odd or any(part in ("", ".", "..") or part[-1] in ". " for part in name.split("/")):
            msg = f"A bundle is unpacked on any system; the file name {name!r} cannot be: rename it in the model."
            raise InvalidInput(msg)
        twin = seen.setdefault(unicodedata.normalize("NFKC", name).casefold(), name)
        if twin != name:
            msg = f"{name!r} and {twin!r} are one file on some systems; rename one of them in the model."
            raise InvalidInput(msg)


def _digest(content: Path | str) -> str:
    return sha256_file(content) if isinstance(content, Path) else sha256_bytes(content.encode("utf-8"))


def _folder(target: Path, files: Mapping[str, Path | str]) -> None:
    for name, content in sorted(files.items()):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copyfile(content, place)
        else:
            place.write_bytes(content.encode("utf-8"))


def _zip(target: Path, files: Mapping[str, Path | str]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    try:
        with zipfile.ZipFile(draft, "w", compression=zipfile.ZIP_STORED) as archive:
            for name, content in sorted(files.items()):
                entry = zipfile.ZipInfo(name, date_time=EPOCH)
                entry.external_attr = 0o644 << 16
                entry.create_system = 3
                if isinstance(content, str):
                    archive.writestr(entry, content.encode("utf-8"))
                    continue
                entry.file_size = content.stat().st_size
                with content.open("rb") as source, archive.open(entry, "w") as sink:
                    shutil.copyfileobj(source, sink)
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
